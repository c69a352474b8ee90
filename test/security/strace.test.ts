/**
 * What the kernel is asked for, seen by strace: a server of an unprivileged user, and a session of every path that
 * might lead out of a tree. Nothing outside of the data directory, the configuration, the source and the runtime is
 * opened, looked at or connected to; and no word of a client reaches a system call that takes a path.
 */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname, join, resolve } from 'node:path'
import { test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import { framed, NO_FILTERS, nul, rule, text } from '../support/hostile.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort, run, ServerProcess } from '../support/processes.ts'
import { rsync, rsyncSucceeds } from '../support/rsync.ts'
import { isRoot } from '../support/scratch.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const NOBODY = { name: 'nobody', uid: 65_534, gid: 65_534 }
/** Stands in every hostile path that names something which is not there. */
const WORD = 'upserv-hostile-word'
const PATIENCE_MS = 60_000

/** What Node and the system's libraries look at when a process or a thread starts. */
const OF_THE_SYSTEM = [
  ...['/usr/', '/lib/', '/lib64/', '/bin/', '/proc/', '/sys/fs/cgroup', '/sys/devices/system/'],
  ...['/etc/ld.so', '/etc/ssl/', '/etc/localtime', '/etc/nsswitch.conf', '/etc/passwd', '/etc/group'],
  // The resolver of names, once.
  ...['/etc/resolv.conf', '/etc/netsvc.conf', '/etc/svc.conf', '/etc/hosts'],
  ...['/dev/null', '/dev/urandom', '/etc/alternatives/'],
]

async function whyNot(): Promise<string | false> {
  if ((await findProgram('strace')) === undefined) return 'needs strace: apt-get install strace'
  const probe = await run('strace', ['-o', '/dev/null', 'true'])
  if (probe.code !== 0) return `strace does not work here: ${probe.stderr.trim()}`
  if (!isRoot) return false
  const readable = await run('setpriv', [
    '--reuid',
    String(NOBODY.uid),
    '--clear-groups',
    'test',
    '-r',
    join(ROOT, 'bin/upserv.ts'),
  ])
  return readable.code === 0 ? false : 'needs a checkout that user nobody may read'
}

test('a session of hostile paths opens nothing but data, configuration, source and runtime', {
  skip: await whyNot(),
}, async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 3, 2000))
  await mirror.startNginx()
  chmodSync(mirror.path(''), 0o755)
  mkdirSync(mirror.data, { mode: 0o750 })
  if (isRoot) chownSync(mirror.data, NOBODY.uid, NOBODY.gid)
  const [port, httpPort] = [await freePort(), await freePort()]
  const config = mirror.path('upserv.toml')
  writeFileSync(
    config,
    `data_dir = "${mirror.data}"\n[rsync]\nlisten = ["127.0.0.1:${port}"]\n[http]\nlisten = ["127.0.0.1:${httpPort}"]\n[[source]]\nname = "m"\nurl = "${mirror.nginx.url}/{build}"\n[channels]\nstable = "1"\n[[module]]\nname = "channel-*"\nexclude = ["*.o"]\n`,
  )
  const trace = mirror.path('trace')
  const server = new ServerProcess(
    'strace',
    [
      ...[
        '-f',
        '-qq',
        '-s',
        '70000',
        '-e',
        'trace=%file,%network,clone,clone3',
        '-e',
        'signal=none',
        '-o',
        trace,
      ],
      ...(isRoot ? ['-u', NOBODY.name] : []),
      ...[process.execPath, join(ROOT, 'bin/upserv.ts'), 'serve', '--config', config],
    ],
    { env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } },
  )
  const pid = async (): Promise<number> => {
    const children = readFileSync(`/proc/${server.child.pid}/task/${server.child.pid}/children`, 'utf8')
    return Number(children.trim().split(' ')[0])
  }
  try {
    await server.waitForOutput('stdout', /^listening /m, PATIENCE_MS)
    const url = `rsync://127.0.0.1:${port}`
    if (isRoot) assert.equal(statSync(`/proc/${await pid()}`).uid, NOBODY.uid)

    // Who means well, so that what is loaded later is loaded, and that the trace is known to see.
    const place = mirror.place()
    await rsyncSucceeds(['-aHz', `${url}/build-1/root/`, place], { timeoutMs: PATIENCE_MS })
    mirror.assertTree('1', place)
    await rsyncSucceeds(['-r', '--files-from=-', `${url}/channel-stable/root/`, mirror.place()], {
      input: 'file-0\n',
    })
    const before = ofItself(readFileSync(trace, 'latin1')).length

    await hostileClients(url, port, mirror)
    await hostileRequests(httpPort)
    await rsyncSucceeds(['-aH', `${url}/build-1/root/`, mirror.place()], { timeoutMs: PATIENCE_MS })

    const seen = ofItself(readFileSync(trace, 'latin1'))
    const allowed = [mirror.data, config, `${ROOT}/`, `${dirname(process.execPath)}/`]
    const touched = pathsIn(seen)
    assert.ok(touched.has(config), 'the trace does not see that the configuration is read')
    assert.ok([...touched].some((path) => path.startsWith(join(mirror.data, 'builds/1/manifest'))))
    // In its thread.
    assert.ok([...touched].some((path) => path.startsWith(join(mirror.data, 'incoming/'))))
    const outside = [...touched].filter(
      (path) => ![...allowed, ...OF_THE_SYSTEM].some((start) => path.startsWith(start)),
    )
    assert.deepEqual(
      outside.filter((path) => !isAncestor(path, [...allowed, ...OF_THE_SYSTEM])),
      [],
    )

    // While clients are hostile, less than that: data, threads that begin, and how much memory there is.
    const during = seen.slice(before)
    assert.deepEqual(
      during.split('\n').filter((line) => line.includes(WORD)),
      [],
    )
    const meanwhile = [...pathsIn(during)].filter(
      (path) =>
        ![mirror.data, `${ROOT}/`, '/proc/self', '/proc/meminfo', '/sys/fs/cgroup'].some((start) =>
          path.startsWith(start),
        ),
    )
    assert.deepEqual(
      meanwhile.filter((path) => !isAncestor(path, [ROOT])),
      [],
    )
    assert.doesNotMatch(during, /execve\(/, 'a program was started')
    // Nobody is called but who is asked for builds.
    for (const [line, family = ''] of during.matchAll(/^.*\bconnect\(\d+, \{sa_family=(AF_\w+).*$/gm))
      assert.ok(family === 'AF_INET' && line.includes(`htons(${new URL(mirror.nginx.url).port})`), line)
  } finally {
    if (server.isRunning) process.kill(await pid(), 'SIGTERM')
    await server.ended
  }
})

async function hostileClients(url: string, port: number, mirror: Mirror): Promise<void> {
  const paths = [
    `../../../../etc/${WORD}`,
    '../../../../etc/shadow',
    `root/../../../../etc/${WORD}`,
    '/etc/shadow',
    `//etc/${WORD}`,
    `./././../${WORD}`,
    `root/dir/link/../../../${WORD}`,
    `root/${WORD.repeat(300)}`,
    `root/${`${WORD}/`.repeat(100)}`,
    `root/[${WORD}*?`,
    `root/%2e%2e/%2fetc/${WORD}`,
    `root/\\..\\${WORD}`,
  ]
  for (const path of paths) {
    for (const options of ['-aH', '-aL', '-rRk'])
      await rsync([options, `${url}/build-1/${path}`, mirror.place()], { timeoutMs: PATIENCE_MS })
  }
  for (const filter of [
    `. /etc/${WORD}`,
    `: ../../${WORD}`,
    `:n- /etc/${WORD}`,
    `+ /../${WORD}`,
    `merge,e ../${WORD}`,
  ]) {
    const said = [
      text(`@RSYNCD: 31.0\nbuild-1\n${nul('--server', '--sender', '-rlogD', '.', 'build-1/root/')}`),
    ]
    await talk(port, Buffer.concat([...said, framed(rule(filter), NO_FILTERS, Buffer.alloc(5))]))
  }
  const argument = (...args: string[]): Buffer =>
    Buffer.concat([
      text(`@RSYNCD: 31.0\nbuild-1\n${nul('--server', '--sender', '-r', ...args, '.', 'build-1/root/')}`),
      framed(NO_FILTERS, Buffer.alloc(5)),
    ])
  for (const option of [
    `--files-from=/etc/${WORD}`,
    `--files-from=build-1/../../${WORD}`,
    `--log-file=/tmp/${WORD}`,
    `--partial-dir=/tmp/${WORD}`,
    `--temp-dir=/tmp/${WORD}`,
    `--backup-dir=/tmp/${WORD}`,
    `--compare-dest=/tmp/${WORD}`,
    `--copy-dest=../${WORD}`,
    `--link-dest=/${WORD}`,
    `--password-file=/etc/${WORD}`,
    `--exclude-from=/etc/${WORD}`,
    `--early-input=/etc/${WORD}`,
    `--write-batch=/tmp/${WORD}`,
    `--rsync-path=/bin/${WORD}`,
    `--config=/etc/${WORD}`,
    `--daemon`,
    `-e/bin/${WORD}`,
  ])
    await talk(port, argument(option))
  const files = [`../../${WORD}`, `/etc/${WORD}`, '..', `${WORD}\0../${WORD}`, `${WORD}`.repeat(200)].join(
    '\0',
  )
  await talk(
    port,
    Buffer.concat([
      text(
        `@RSYNCD: 31.0\nbuild-1\n${nul('--server', '--sender', '-r', '--files-from=-', '--from0', '.', 'build-1/root/')}`,
      ),
      framed(NO_FILTERS, text(`${files}\0\0`), Buffer.alloc(5)),
    ]),
  )
  for (const module of [
    `../../etc/${WORD}`,
    `/etc/${WORD}`,
    'build-1/../../etc',
    `build-../../../etc/${WORD}`,
    `build-..`,
    `build-.`,
    'build-',
    `channel-../../${WORD}`,
    `build-1\0/../../${WORD}`,
    `builds/../${WORD}`,
    `build-1%00${WORD}`,
    WORD.repeat(1000),
    `\x1b]0;${WORD}\x07`,
  ])
    await talk(
      port,
      text(`@RSYNCD: 31.0\n${module}\n${nul('--server', '--sender', '-r', '.', `${module}/`)}`),
    )
  for (const path of [`../${WORD}`, `1/../../${WORD}`, `..`, `1/root/../../../${WORD}`])
    await rsync(['-r', `${url}/builds/${path}`, mirror.place()], { timeoutMs: PATIENCE_MS })
}

async function hostileRequests(port: number): Promise<void> {
  for (const path of [
    `/../../etc/${WORD}`,
    `/page/../../../etc/${WORD}`,
    `/page/..%2f..%2f..%2fetc%2f${WORD}`,
    `/page/${WORD}.js`,
    `/builds/1/root/..%2f..%2f..%2f${WORD}`,
    `/builds/1/root/%2e%2e/%2e%2e/${WORD}`,
    `/builds/..%2f..%2f${WORD}/manifest.json`,
    `/builds/${WORD}%00.tar`,
    `/builds/1/root//etc/${WORD}`,
    `/api/v1/builds/..%2f${WORD}`,
    `//${WORD}`,
    `/${WORD.repeat(500)}`,
  ])
    await talk(port, text(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: close\r\n\r\n`))
}

/** Says it, and waits until the server has hung up or has no more to say for want of an answer. */
function talk(port: number, bytes: Uint8Array): Promise<void> {
  return new Promise((done) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: false })
    socket.on('error', () => {}).on('close', () => done())
    socket.resume()
    socket.end(bytes)
  })
}

/** What the server itself did: its threads, and none of the programs that it starts. */
function ofItself(trace: string): string {
  const lines = trace.split('\n')
  const pidOf = (line: string): string => line.slice(0, line.indexOf(' '))
  const threads = new Set([pidOf(lines[0]!)])
  /** Who is about to have one more thread. */
  const pending = new Set<string>()
  return lines
    .filter((line) => {
      const pid = pidOf(line)
      if (line.includes('CLONE_THREAD')) pending.add(pid)
      const made = /\bclone3?(?:\(| resumed).*\) += (\d+)$/.exec(line.replace(/ =>.*\}/, ''))?.[1]
      if (made !== undefined && pending.delete(pid) && threads.has(pid)) threads.add(made)
      return threads.has(pid)
    })
    .join('\n')
}

/** Every path that a system call was given. */
function pathsIn(trace: string): Set<string> {
  const found = new Set<string>()
  for (const line of trace.split('\n')) {
    const call = /^\d+ +(\w+)\(/.exec(line)?.[1]
    if (
      call === undefined ||
      /^(?:connect|bind|accept4?|getsockname|getpeername|send|recv|sendto|recvfrom|sendmsg|recvmsg|setsockopt|getsockopt|socket)/.test(
        call,
      )
    )
      continue
    for (const [, path] of line.matchAll(/"((?:[^"\\]|\\.)*)"/g)) if (path!.startsWith('/')) found.add(path!)
  }
  return found
}

/** A directory on the way to one of these: what resolves links and makes directories looks at it. */
function isAncestor(path: string, of: readonly string[]): boolean {
  return of.some((each) => each === path || each.startsWith(path === '/' ? '/' : `${path}/`))
}
