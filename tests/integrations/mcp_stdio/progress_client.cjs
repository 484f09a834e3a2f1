// A client of the official SDK that counts the progress it is told about.
// node progress_client.cjs FOLDER-OF-NODE_MODULES COMMAND ...
const { createRequire } = require("node:module");
const from = createRequire(`${process.argv[2]}/package.json`);
const { Client } = from("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = from("@modelcontextprotocol/sdk/client/stdio.js");

async function main() {
  const [command, ...args] = process.argv.slice(3);
  const client = new Client({ name: "progress", version: "1" });
  await client.connect(new StdioClientTransport({ command, args, env: process.env }));
  const counts = [];
  for (let turn = 0; turn < 3; turn++) {
    let count = 0;
    const params = { name: "progress", arguments: { count: 50 } };
    await client.callTool(params, undefined, { onprogress: () => { count += 1; } });
    counts.push(count);
  }
  await client.close();
  console.log(JSON.stringify(counts));
}

main();
