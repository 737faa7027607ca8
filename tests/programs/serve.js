// An HTTP server on loopback, with a key and a certificate an HTTPS server. It says "ready PORT".
// A request for /STATUS/… is answered with that status, one for /early/… after "100 Continue", one for /never by nobody.
const fs = require('fs');
const [key, cert] = process.argv.slice(2);
const answer = (request, response) => {
  const [, first] = request.url.split(/[/?]/);
  if (first === 'never') return;
  if (first === 'early') response.writeContinue();
  response.statusCode = parseInt(first) || 200;
  response.end('done\n');
};
const server = key
  ? require('https').createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, answer)
  : require('http').createServer(answer);
server.listen(0, '127.0.0.1', () => console.log(`ready ${server.address().port}`));
