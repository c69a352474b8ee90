/**
 * Programs that read what comes from elsewhere: an extractor that has been taken over tries what it can, and
 * writes down what it could. The same program with our own rights can do all of it, or the test would show nothing.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { startProgram } from '../../src/archive/program.ts'
import { type Means, meansOfConfinement, type Strength, spawnConfined } from '../../src/lib/confined.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { buildsOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'

/** Each line that it prints is something that it could do. */
const TAKEN_OVER = `#!/usr/bin/perl
use IO::Socket::INET; use IO::Socket::UNIX; use Socket;
my ($port, $outside, $control, $secret, $victim) = @ARGV;
sub could { print "could ", join(' ', @_), "\\n" }
could('connect') if IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port", Timeout => 5);
could('resolve') if IO::Socket::INET->new(Proto => 'udp', PeerAddr => '192.0.2.1:53');
could('talk to the server') if IO::Socket::UNIX->new(Peer => $control);
could('write outside') if open(my $file, '>', $outside);
could('write in /tmp') if open(my $tmp, '>', "/tmp/upserv-taken-over-$$") and unlink "/tmp/upserv-taken-over-$$";
could('read secrets') if open(my $read, '<', $secret);
could('see the server') if kill 0, $victim;
my $home;
could('write at home') if open($home, '>', "$ENV{TMPDIR}/mine") and syswrite($home, 'mine');
print "done\\n";
`

const WITH_LESS = join(import.meta.dirname, '../support/confined-with-less.ts')
const { strength } = await meansOfConfinement()
const sealed = strength.startsWith('sealed')
const skip = !sealed && `this machine lets nobody confine a program: ${strength}`

test('an extractor that was taken over reaches no network, no file, no socket and no process', {
  skip,
}, async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 2, 1000), { suffix: 'tar' })
  const listener = createServer((socket) => socket.destroy())
    .listen(0, '127.0.0.1')
    .unref()
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const extractor = mirror.path('extractor')
  writeFileSync(extractor, TAKEN_OVER)
  chmodSync(extractor, 0o755)
  const secret = mirror.path('secrets')
  writeFileSync(secret, 'somebody:a password\n', { mode: 0o600 })
  const config = mirror.path('upserv.toml')
  const outside = mirror.path('outside')
  const args = [port, outside, join(mirror.data, 'upserv.sock'), secret, process.pid].map(String)
  writeFileSync(
    config,
    `[[source]]\nname = "odd"\nurl = "file://${mirror.path('www')}/{build}"\nextract = ${JSON.stringify([extractor, ...args])}\n`,
  )
  const upserv = await mirror.startUpserv({ config, sources: [] })

  // With our own rights it can do all of it, while the server runs.
  const free = execFileSync(extractor, args, {
    env: { ...process.env, TMPDIR: mirror.path('') },
    encoding: 'utf8',
  })
  for (const deed of [
    'connect',
    'talk to the server',
    'write outside',
    'write in /tmp',
    'read secrets',
    'see the server',
    'write at home',
  ])
    assert.match(free, new RegExp(`^could ${deed}$`, 'm'), free)
  execFileSync('rm', ['-f', outside])

  // By the server: what it prints is no tar, so that the message shows the start of it.
  const refused = await mirror.sync(upserv, '1', 5)
  assert.match(refused.stderr + refused.stdout, /@ERROR/)
  assert.ok(!existsSync(outside), 'it wrote outside')
  assert.deepEqual(buildsOnDisk(mirror.data), [])
  assert.deepEqual(mirror.incoming(), [])

  // What exactly it could do.
  using scratch = makeScratch('taken-over')
  const said = await printed(extractor, args, scratch.path)
  assert.equal(said, 'could write at home\ndone\n')
  assert.ok(existsSync(join(scratch.path, 'mine')))
  listener.close()
  await upserv.stop()
})

test('a program that reads what somebody made writes nothing and takes a bounded share of memory', {
  skip,
}, async () => {
  using scratch = makeScratch('decompressor')
  const eats = 'my $all = ""; $all .= "x" x 1e7 while 1'
  const { ended } = await spawnConfined('/usr/bin/perl', ['-e', eats], {
    stdio: 'ignore',
    env: {},
    maxMemoryBytes: 200 * 2 ** 20,
  })
  assert.notEqual(await ended, 0)
  const file = join(scratch.path, 'file')
  writeFileSync(file, 'before')
  const writes = await spawnConfined('/usr/bin/perl', ['-e', 'open(F, ">", $ARGV[0]) or exit 7', file], {
    stdio: 'ignore',
    env: {},
    reads: [file],
  })
  assert.equal(await writes.ended, 7)
  assert.equal(readFileSync(file, 'utf8'), 'before')
})

test('a file that an extractor writes is as large as it may be, and no larger', { skip }, async () => {
  using scratch = makeScratch('large')
  const { ended } = await spawnConfined(
    '/usr/bin/perl',
    ['-e', 'open(F, ">", "f"); print F "x" x 1e6; close F or exit 7'],
    {
      stdio: 'ignore',
      env: {},
      directory: scratch.path,
      maxFileBytes: 100_000,
    },
  )
  const status = await ended
  assert.ok(status === 7 || status === 'SIGXFSZ', String(status))
  assert.equal(readFileSync(join(scratch.path, 'f')).length, 100_000)
})

test('one that is killed takes along what it started, also what left its group', { skip }, async () => {
  using scratch = makeScratch('group')
  const pidOf =
    'use POSIX; if (!fork) { POSIX::setsid(); sleep 600 } print "started\\n"; $|=1; print "\\n"; sleep 600'
  const program = await spawnConfined('/usr/bin/perl', ['-e', pidOf, scratch.path], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {},
    directory: scratch.path,
  })
  const [, stdout] = program.child.stdio
  await new Promise((resolve) => stdout!.once('data', resolve))
  program.kill()
  assert.equal(await program.ended, 'SIGKILL')
  const left = readdirSync('/proc').filter((pid) => readCommand(pid).includes(scratch.path))
  assert.deepEqual(left, [])
})

/** As on machines that lack programs: what is left of it still works, and says what it is. */
const LESS: readonly {
  programs: readonly string[]
  strength: Strength
  bounded: boolean
  connects: boolean
}[] = [
  { programs: ['true', 'prlimit', 'bwrap'], strength: 'sealed', bounded: true, connects: false },
  { programs: ['true', 'bwrap'], strength: 'sealed', bounded: false, connects: false },
  { programs: ['true', 'prlimit', 'unshare'], strength: 'no network', bounded: true, connects: false },
  { programs: ['true', 'prlimit'], strength: 'none', bounded: true, connects: true },
  { programs: ['true'], strength: 'none', bounded: false, connects: true },
]
for (const { programs, strength: expected, bounded, connects } of LESS) {
  test(`where there are only ${programs.join(', ')}: ${expected}`, { skip }, async () => {
    using scratch = makeScratch('less')
    for (const name of programs) symlinkSync((await findProgram(name))!, join(scratch.path, name))
    const listener = createServer((socket) => socket.destroy())
      .listen(0, '127.0.0.1')
      .unref()
    await once(listener, 'listening')
    const { port } = listener.address() as AddressInfo
    const { stdout, stderr } = await run(process.execPath, [WITH_LESS, String(port)], {
      env: { PATH: scratch.path },
    })
    const { refused, ...said } = JSON.parse(stdout || stderr) as Means & { connected: boolean }
    assert.equal(said.strength.replace(', without /proc', ''), expected)
    assert.deepEqual([said.bounded, said.connected], [bounded, connects])
    if (expected === 'none')
      assert.ok(refused.length >= 3 && refused.every((why) => /bwrap|unshare|prlimit/.test(why)))
  })
}

async function printed(program: string, args: string[], directory: string): Promise<string> {
  const stage = await startProgram(program, args, {
    env: { TMPDIR: directory },
    confinement: { directory, maxFileBytes: 1e6 },
    explain: (status, complaint) => new Error(`${status}: ${Buffer.from(complaint)}`),
  })
  const pieces: Uint8Array[] = []
  for await (const piece of stage.output) pieces.push(piece as Uint8Array)
  await stage.finished()
  stage.kill()
  return Buffer.concat(pieces).toString()
}

function readCommand(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    return ''
  }
}
