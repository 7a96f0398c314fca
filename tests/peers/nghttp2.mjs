// nghttp2, as Node.js carries it in its module http2, at either end of an HBONE tunnel.
//
//   node nghttp2.mjs '{"side":"client", …}'   takes plain TCP on `listen`, carries each connection as
//       a CONNECT for `destination` in mutual TLS to `peer`
//   node nghttp2.mjs '{"side":"server", …}'   takes mutual TLS on `listen`, connects each CONNECT
//       stream to the address that it asks for
//
// Both: `chain`, `key` and `root` are files, `identity` is what the other side must prove. Prints
// "listening", "a tunnel" for each, and "told to go" for each GOAWAY. On SIGUSR2 it says GOAWAY in
// every tunnel, prints "goes", and goes on listening.

import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import net from 'node:net';

const args = JSON.parse(process.argv[2]);
const sessions = new Map(); // to the number of their streams

const common = {
  cert: readFileSync(args.chain),
  key: readFileSync(args.key),
  ca: readFileSync(args.root),
  minVersion: 'TLSv1.3',
  ALPNProtocols: ['h2'],
  // Frames with as much padding as there can be.
  paddingStrategy: http2.constants.PADDING_STRATEGY_MAX,
  // In megabytes; the default of ten counts what waits in a thousand streams.
  maxSessionMemory: 1000,
  settings: { maxConcurrentStreams: 2000, initialWindowSize: 1 << 20 },
};

function proves(certificate) {
  return (certificate.subjectaltname ?? '').split(', ').includes(`URI:${args.identity}`);
}

// An end passes as an end, in each direction by itself; anything else passes as a reset.
function join(socket, stream) {
  socket.pipe(stream);
  stream.pipe(socket, { end: false });
  // Node ends what it reads of a stream that was reset, too.
  stream.on('end', () => stream.aborted || stream.rstCode || socket.end());
  socket.on('error', () => {
    // Node sends END_STREAM on a stream before it resets it. This keeps it from that.
    stream._final = (done) => done();
    stream.close(http2.constants.NGHTTP2_CONNECT_ERROR);
  });
  stream.on('error', () => {}); // 'close' follows
  stream.on('close', () => {
    if (stream.rstCode !== 0 || !stream.readableEnded) socket.resetAndDestroy();
  });
}

function keep(session) {
  sessions.set(session, 0);
  console.log('a tunnel');
  session.on('close', () => sessions.delete(session));
  session.on('error', (error) => console.error(String(error)));
  session.on('goaway', () => {
    sessions.delete(session);
    console.log('told to go');
  });
}

function client() {
  const [host, port] = args.peer.split(':');
  const session = () => {
    // Node queues what is beyond the limit of the peer (200); so do not come near it.
    for (const [one, streams] of sessions) if (streams < 150 && !one.closed) return one;
    const one = http2.connect(`https://${host}:${port}`, {
      ...common,
      checkServerIdentity: (_, certificate) =>
        proves(certificate) ? undefined : new Error(`not ${args.identity}`),
    });
    keep(one);
    return one;
  };
  const carry = (socket, tries) => {
    const on = session();
    sessions.set(on, sessions.get(on) + 1);
    const stream = on.request({ ':method': 'CONNECT', ':authority': args.destination });
    let granted = false;
    stream.on('response', (headers) => {
      granted = headers[':status'] === 200;
      granted ? join(socket, stream) : stream.close();
    });
    stream.on('error', () => {}); // 'close' follows
    stream.on('close', () => {
      if (sessions.has(on)) sessions.set(on, sessions.get(on) - 1);
      if (granted) return;
      // RFC 9113 §8.7: nothing was done for it. So it is with what was to be sent when GOAWAY came.
      const again = stream.rstCode === http2.constants.NGHTTP2_REFUSED_STREAM && tries > 1;
      again ? carry(socket, tries - 1) : socket.resetAndDestroy();
    });
  };
  listen(
    net.createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (socket) => {
      socket.on('error', () => {}); // `join` has its own
      carry(socket, 3);
    }),
  );
}

function server() {
  const server = http2.createSecureServer({
    ...common,
    requestCert: true,
    rejectUnauthorized: true,
  });
  server.on('session', (session) => {
    keep(session);
    if (!proves(session.socket.getPeerCertificate())) session.destroy();
  });
  server.on('stream', (stream, headers) => {
    const [host, port] = headers[':authority'].split(':');
    const socket = net.connect({ host, port, allowHalfOpen: true, noDelay: true });
    stream.on('error', () => {});
    socket.once('error', () => {
      if (!stream.headersSent) stream.respond({ ':status': 503 }, { endStream: true });
    });
    socket.once('connect', () => {
      if (stream.destroyed) return socket.destroy();
      stream.respond({ ':status': 200 });
      join(socket, stream);
    });
  });
  listen(server);
}

function listen(server) {
  const [host, port] = args.listen.split(':');
  server.listen({ host, port, backlog: 4096 }, () => console.log('listening'));
  process.on('SIGUSR2', () => {
    for (const session of [...sessions.keys()]) session.close();
    console.log('goes');
  });
}

args.side === 'client' ? client() : server();
