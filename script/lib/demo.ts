/**
 * `script/server`: a whole upserv set-up on this machine. Two builds, an upstream that publishes them, the
 * server that fetches them on demand, and the commands that show it. All state is under tmp/demo.
 *
 * With --once it types the commands itself, checks that the trees arrive exactly, and ends.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { run } from '../../test/support/processes.ts'
import { assertSameTree, type Snapshot, snapshot } from '../../test/support/snapshot.ts'
import { makeDemoBuilds } from './demo-builds.ts'
import { startUpstream } from './upstream.ts'

const USAGE = `Usage: script/server [--port N] [--http N] [--once] [--fresh]

Starts upserv with two small builds to try it on: makes them (from Debian packages where
apt is there), publishes them on a web server of their own, and prints what to type.
Needs npm, and rsync to try it. Everything it writes is under tmp/demo.

  --port N   rsync port (default 8872; another one if it is taken)
  --http N   port of the web page (default 8731; 0: no web page)
  --once     run the commands too, check what arrives, and end
  --fresh    forget what was fetched and synced before
`

/** How long the server may take to be ready, and to end. */
const START_MS = 30_000
const STOP_MS = 15_000

/** A first sync with its fetch takes seconds. */
const SYNC_MS = 300_000

const checkout = process.cwd()
const home = resolve('tmp/demo')
const isRoot = process.getuid?.() === 0

/** Without root, rsync can make neither owners nor device nodes. */
const SYNC = isRoot ? ['-aH'] : ['-aH', '--no-D']

const options = readOptions()
await main()

function readOptions(): { port: number; http: number; once: boolean; fresh: boolean } {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: 'string', default: '8872' },
        http: { type: 'string', default: '8731' },
        once: { type: 'boolean', default: false },
        fresh: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    if (values.help) {
      process.stdout.write(USAGE)
      process.exit(0)
    }
    return { ...values, port: portNumber(values.port), http: portNumber(values.http) }
  } catch (error) {
    process.stderr.write(`script/server: ${(error as Error).message}\n${USAGE}`)
    process.exit(64)
  }
}

function portNumber(text: string): number {
  if (!/^\d+$/.test(text) || Number(text) > 65_535) throw new Error(`${text} is no port`)
  return Number(text)
}

async function main(): Promise<void> {
  const builds = `${home}/upstream`
  await makeDemoBuilds(builds, (line) => console.log(line))
  // A run that checks itself starts from nothing and leaves what a person tried alone.
  const place = options.once ? mkdtempSync(`${home}/once-`) : home
  if (options.fresh) for (const name of ['data', 'device']) removeTree(`${place}/${name}`)
  mkdirSync(place, { recursive: true })

  const upstream = await startUpstream(builds)
  const server = await startServer(`${place}/data`, upstream.url)
  const device = relative(checkout, `${place}/device`)
  let code = 0
  try {
    if (options.once) await tryAll(server.url, device, builds)
    else await explain(server, upstream.url, device)
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    code = 1
  } finally {
    const ended = await server.stop()
    if (options.once && ended !== 0) {
      console.error(`upserv ended with ${ended} after SIGTERM`)
      code = 1
    }
    upstream.server.closeAllConnections()
    upstream.server.close()
    if (options.once) removeTree(place)
  }
  process.exitCode = code
}

// ---------------------------------------------------------------------------------------------------
// The server.

interface DemoServer {
  url: string
  http: string | undefined
  ended: Promise<number | null>
  stop(): Promise<number | null>
}

async function startServer(data: string, upstream: string): Promise<DemoServer> {
  const rsyncPort = await freeOr0(options.port)
  const httpPort = options.http === 0 ? undefined : await freeOr0(options.http)
  const child = spawn(
    'bin/upserv',
    [
      ...['serve', '--data', data, '--rsync', `127.0.0.1:${rsyncPort}`],
      ...['--http', httpPort === undefined ? 'off' : `127.0.0.1:${httpPort}`],
      // Tried in order: the first that has the build wins.
      ...['--source', `${upstream}/{build}.tar.gz`, '--source', `${upstream}/{build}.tar.zst`],
    ],
    // Ctrl-C reaches the whole group: it is for us to say when the server ends.
    { stdio: ['ignore', 'pipe', 'inherit'], detached: true },
  )
  const ended = new Promise<number | null>((resolve) => {
    child.once('exit', resolve)
    child.once('error', () => resolve(null))
  })
  process.once('exit', () => child.kill('SIGKILL'))
  const ready = await new Promise<string>((resolve, reject) => {
    let printed = ''
    const timer = setTimeout(
      () => reject(new Error(`upserv was not ready in ${START_MS / 1000} s`)),
      START_MS,
    )
    ended.then((code) => reject(new Error(`upserv ended with ${code} before it was ready`)))
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      printed += chunk
      const line = /^listening rsync:.*$/m.exec(printed)
      if (!line || !printed.includes('\n')) return
      clearTimeout(timer)
      resolve(line[0])
    })
  })
  return {
    url: /rsync:\/\/\S+?:\d+/.exec(ready)![0],
    http: /https?:\/\/\S+?:\d+/.exec(ready)?.[0],
    ended,
    stop: async () => {
      child.kill('SIGTERM')
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      const code = await ended
      clearTimeout(timer)
      return code
    },
  }
}

/** The port if nobody has it, else 0: any free one. */
function freeOr0(port: number): Promise<number> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      console.log(`Port ${port} is taken: using another one.`)
      resolve(0)
    })
    socket.once('error', () => resolve(port))
  })
}

// ---------------------------------------------------------------------------------------------------
// What there is to see.

interface Step {
  title: string
  args: string[]
}

function steps(url: string, device: string): Step[] {
  const next = [...SYNC, '--delete', '--stats', `${url}/build-2/root/`, `${device}/`]
  return [
    {
      title: 'The first sync of build 1. Nobody asked for it before, so upserv fetches it while you watch.',
      args: [...SYNC, '--info=progress2', `${url}/build-1/root/`, `${device}/`],
    },
    {
      title: 'Once more: a poll that finds nothing new.',
      args: [...SYNC, '--itemize-changes', '--stats', `${url}/build-1/root/`, `${device}/`],
    },
    {
      title: 'The upgrade to build 2: only what is different crosses the wire.',
      args: next,
    },
    { title: 'The builds that upserv holds now.', args: [`${url}/`] },
  ]
}

async function explain(server: DemoServer, upstream: string, device: string): Promise<void> {
  console.log(`
upserv is listening at ${server.url}, its upstream at ${upstream}.${server.http ? `\nThe web page: ${server.http}/` : ''}
In another terminal, from ${checkout}:
`)
  for (const { title, args } of steps(server.url, device)) {
    console.log(`  # ${title}\n  rsync ${args.join(' ')}\n`)
  }
  console.log(`  # What the server knows.\n  bin/upserv list --data ${relative(checkout, home)}/data\n`)
  if (!hasRsync()) console.log('rsync is not installed here. On Debian: apt-get install rsync\n')
  if (!isRoot) console.log('(As root, use -aH without --no-D: owners and device nodes arrive too.)\n')
  console.log('Ctrl-C ends it.')
  const interrupted = new Promise<void>((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  const code = await Promise.race([interrupted, server.ended])
  if (typeof code === 'number' || code === null) throw new Error(`upserv ended with ${code}`)
}

async function tryAll(url: string, device: string, builds: string): Promise<void> {
  if (!hasRsync()) throw new Error('rsync is not installed. On Debian: apt-get install rsync')
  for (const [index, { title, args }] of steps(url, device).entries()) {
    console.log(`\n# ${title}\n$ rsync ${args.join(' ')}`)
    // Not spawnSync: the upstream lives in this process.
    const { code, stdout, stderr } = await run('rsync', args, { timeoutMs: SYNC_MS })
    process.stdout.write(stdout.replaceAll(/[^\n]*\r/g, '')) // of the progress, what stays on a screen
    process.stderr.write(stderr)
    if (code !== 0) throw new Error(`rsync ended with ${code}`)
    if (index === 0) check(device, `${builds}/1.tar.gz`)
    if (index === 1 && /^[<>c*]/m.test(stdout)) throw new Error('the poll changed something')
    if (index === 2) check(device, `${builds}/2.tar.zst`)
  }
}

/** Compares what arrived with what the archive holds, unpacked by tar. */
function check(device: string, archive: string): void {
  const unpacked = mkdtempSync(`${home}/check-`)
  try {
    // Without root, tar cannot make device nodes, so that the comparison leaves them out. A directory's
    // files are not side by side in the archive: its time must be set at the very end.
    execFileSync('tar', [
      '-xpf',
      archive,
      '-C',
      unpacked,
      '--delay-directory-restore',
      ...(isRoot ? ['--numeric-owner'] : ['--exclude=./dev']),
    ])
    const [expected, actual] = [snapshot(unpacked), snapshot(device)].map(withoutSpecials) as [
      Snapshot,
      Snapshot,
    ]
    assertSameTree(expected, actual, isRoot ? {} : { owners: 'ignored', modes: 'ignored' })
    console.log(`(checked: all ${expected.size} entries are exactly those of ${relative(checkout, archive)})`)
  } finally {
    removeTree(unpacked)
  }
}

function withoutSpecials(tree: Snapshot): Snapshot {
  return isRoot ? tree : new Map([...tree].filter(([path]) => path !== 'dev' && !path.startsWith('dev/')))
}

function hasRsync(): boolean {
  return spawnSync('rsync', ['--version']).status === 0
}

/** Removes a synced tree, in which directories may be closed to their owner. */
function removeTree(path: string): void {
  if (!isRoot) spawnSync('chmod', ['-R', 'u+rwX', path], { stdio: 'ignore' })
  rmSync(path, { recursive: true, force: true })
}
