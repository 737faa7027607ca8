// Statements by node's pg: node pg.js HOW TEXT TIMES VALUE. Prints the milliseconds that they took.
const { Client } = require('pg');

const [how, text, times, value] = process.argv.slice(2);
const asked = {
  simple: () => text,
  parameters: () => ({ text, values: [value] }),
  named: () => ({ name: 'a', text, values: [value] }),
}[how];

(async () => {
  const client = new Client();
  await client.connect();
  const start = process.hrtime.bigint();
  for (let i = 0; i < Number(times); i++) await client.query(asked());
  console.log(Number(process.hrtime.bigint() - start) / 1e6);
  await client.end();
})();
