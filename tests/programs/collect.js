// Collects garbage 13 times in main and 7 times in a worker, when it is told to. Run with --expose-gc.
const { isMainThread, Worker } = require('worker_threads');
if (!isMainThread) {
  for (let i = 0; i < 7; i++) global.gc();
} else {
  process.stdin.once('data', () => {
    for (let i = 0; i < 13; i++) global.gc();
    new Worker(__filename).once('exit', () => process.exit(0));
  });
  console.log('ready');
}
