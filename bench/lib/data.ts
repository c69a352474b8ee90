/**
 * What is measured with: a pair of consecutive builds, as trees for the stock daemon and as archives for
 * upserv. Made once and kept under tmp/bench; delete a pair's directory to have it made again.
 *
 * `debian` is a whole system of about 40,000 entries and 1.4 GB: a laptop's desktop with a browser,
 * compilers and a kernel. Build `a` is the release's point release alone, `b` the same packages installed
 * from scratch with all updates, and two packages more. `made` takes seconds and no network.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { debianSuites, type Suite } from '../../script/lib/debian-suites.ts'
import { formatDuration, formatSize } from '../../src/lib/units.ts'
import { run } from '../../test/support/processes.ts'
import { type MadeBuild, makeBuild } from './made-build.ts'

/** Everything that measuring leaves behind. */
export const HOME = resolve(import.meta.dirname, '../../tmp/bench')

/** A build on disk. As a module of the stock daemon, `directory` holds it under the name `root`. */
export interface Build {
  readonly id: string
  readonly directory: string
  /** `directory/root`: the tree itself. */
  readonly tree: string
  readonly tar: string
  readonly entries: number
  /** Bytes of all files, those of several names counted once. */
  readonly bytes: number
}

export interface Pair {
  readonly name: string
  /** For people: what it consists of. */
  readonly description: string
  readonly from: Build
  readonly to: Build
}

/** mmdebstrap downloads, unpacks and configures some 600 packages. */
const MAKE_MS = 60 * 60_000

const SYSTEM = ['linux-image-cloud-amd64', 'systemd-sysv', 'dbus', 'udev', 'kmod', 'iproute2', 'iputils-ping']
const DESKTOP = [
  ...['sugar-session', 'sugar-browse-activity', 'xserver-xorg-core', 'xserver-xorg-input-libinput'],
  ...['x11-xserver-utils', 'xterm', 'libgl1-mesa-dri', 'network-manager', 'alsa-utils'],
  ...['fonts-dejavu', 'fonts-liberation', 'fonts-noto-core', 'adwaita-icon-theme', 'locales', 'tzdata'],
]
const TOOLS = [
  ...['python3', 'python3-numpy', 'perl', 'vim', 'git', 'gcc', 'g++', 'make', 'sqlite3', 'busybox', 'sudo'],
  ...['openssl', 'openssh-client', 'curl', 'wget', 'rsync', 'ca-certificates', 'less', 'man-db'],
]
const ADDED = ['jq', 'tmux']

/** What those who make images leave out: documentation, most translations, what only compiler makers need. */
const LEFT_OUT = [
  ...['/usr/share/doc/*', '/usr/share/info/*', '/usr/share/locale/*'],
  ...['/usr/lib/gcc/*/*/lto1', '/usr/bin/*lto-dump*'],
  ...['/usr/lib/*/libwebkit2gtk-4.0.so*', '/usr/lib/*/libjavascriptcoregtk-4.0.so*'],
]
const KEPT = [
  '/usr/share/doc/*/copyright',
  ...['en', 'es', 'fr', 'pt', 'ar', 'ht'].map((language) => `/usr/share/locale/${language}*`),
]

/** The pair of whole systems. Needs root, Debian or a relative, mmdebstrap, 6 GB and some ten minutes. */
export async function debianPair(): Promise<Pair> {
  const suites = await debianSuites()
  const packages = [...SYSTEM, ...DESKTOP, ...TOOLS]
  const from = await keep('debian', 'a', (tree) => installSystem(tree, suites.slice(0, 1), packages))
  const to = await keep('debian', 'b', (tree) => installSystem(tree, suites, [...packages, ...ADDED]))
  const release = suites[0]!.name
  return {
    name: 'debian',
    description: `Debian ${release}, a desktop with a browser and compilers: the point release, and the same with all updates and ${ADDED.join(', ')}`,
    from,
    to,
  }
}

/** The small pair, for a run that takes a minute. */
export async function madePair(): Promise<Pair> {
  const shape = { entries: 3_000, fileBytes: 8_000, largeEvery: 150 }
  return {
    name: 'made',
    description: 'two small generated builds; see bench/lib/made-build.ts',
    from: await madeBuild({ ...shape, generation: 0 }),
    to: await madeBuild({ ...shape, generation: 1 }),
  }
}

/** One generated build, kept like the others. */
export function madeBuild(build: MadeBuild): Promise<Build> {
  const { entries, generation, fileBytes } = build
  return keep(`made-${entries}-${fileBytes}`, `g${generation}`, async (tree) => {
    const tar = `${tree}.tar`
    writeFileSync(tar, makeBuild(build).finish())
    await succeed('tar', ['-xpf', tar, '-C', tree, '--numeric-owner', '--delay-directory-restore'])
    rmSync(tar)
  })
}

/** Makes a build with `fill` unless an earlier run did. What is there under its name is complete. */
async function keep(pair: string, id: string, fill: (tree: string) => Promise<void>): Promise<Build> {
  const directory = join(HOME, 'data', pair, id)
  const tree = join(directory, 'root')
  const tar = `${directory}.tar`
  const facts = `${directory}.json`
  if (!existsSync(facts)) {
    console.error(`Making build ${id} of ${pair} (kept in ${directory}) ...`)
    const started = performance.now()
    const partial = `${directory}.partial`
    for (const stale of [directory, partial]) await succeed('rm', ['-rf', '--one-file-system', stale])
    mkdirSync(join(partial, 'root'), { recursive: true })
    await fill(join(partial, 'root'))
    renameSync(partial, directory)
    await succeed('tar', [
      ...['-C', tree, '--sort=name', '--numeric-owner', '--xattrs', '--xattrs-include=*'],
      ...['-cf', tar, '.'],
    ])
    writeFileSync(facts, JSON.stringify(await count(tree)))
    console.error(
      `  ${formatSize(statSync(tar).size)} of tar in ${formatDuration(performance.now() - started)}`,
    )
  }
  const { entries, bytes } = JSON.parse(readFileSync(facts, 'utf8')) as { entries: number; bytes: number }
  return { id, directory, tree, tar, entries, bytes }
}

async function installSystem(
  tree: string,
  suites: readonly Suite[],
  packages: readonly string[],
): Promise<void> {
  const result = await run(
    'mmdebstrap',
    [
      ...['--mode=root', '--variant=important', '--format=directory', `--include=${packages.join(',')}`],
      // A build machine's clock may be ahead of what an archive says about itself.
      ...['--aptopt=Acquire::Check-Valid-Until "false"', '--aptopt=Acquire::Check-Date "false"'],
      ...LEFT_OUT.map((path) => `--dpkgopt=path-exclude=${path}`),
      ...KEPT.map((path) => `--dpkgopt=path-include=${path}`),
      '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1"/etc/apt/sources.list',
      ...[suites[0]!.name, tree, '-'],
    ],
    { input: suites.map(({ uri, name }) => `deb ${uri} ${name} main\n`).join(''), timeoutMs: MAKE_MS },
  )
  assert.equal(result.code, 0, `mmdebstrap failed:\n${result.stderr.slice(-4_000)}`)
}

async function count(tree: string): Promise<{ entries: number; bytes: number }> {
  const listed = await succeed('find', [tree, '-mindepth', '1', '-printf', '%y %n %i %s\n'])
  const seen = new Set<string>()
  let entries = 0
  let bytes = 0
  for (const line of listed.split('\n')) {
    const [type, links, inode, size] = line.split(' ')
    if (!type) continue
    entries++
    if (type !== 'f' || (links !== '1' && seen.has(inode!))) continue
    if (links !== '1') seen.add(inode!)
    bytes += Number(size)
  }
  return { entries, bytes }
}

async function succeed(program: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr, command } = await run(program, args, { timeoutMs: MAKE_MS })
  assert.equal(code, 0, `${command}\n${stderr.slice(-2_000)}`)
  return stdout
}
