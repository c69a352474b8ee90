/** A process of its own, for what it finds in PATH: `node confined-with-less.ts PORT` says what a program may do. */
import { meansOfConfinement, spawnConfined } from '../../src/lib/confined.ts'

const connect =
  'use IO::Socket::INET; exit(IO::Socket::INET->new(PeerAddr => "127.0.0.1:$ARGV[0]", Timeout => 5) ? 0 : 1)'
const means = await meansOfConfinement()
const { ended } = await spawnConfined('/usr/bin/perl', ['-e', connect, process.argv[2]!], {
  stdio: 'ignore',
  env: {},
})
process.stdout.write(JSON.stringify({ ...means, connected: (await ended) === 0 }))
