/**
 * Two consecutive builds of a small system to try upserv with: real root trees with owners, devices,
 * setuid programs and links, as `1.tar.gz` and `2.tar.zst` with their digests.
 *
 * From Debian packages where apt is there: build 1 has the oldest version on offer of each package, build
 * 2 the newest (security updates among them) and one package more. Nothing is installed and no root is
 * needed: the packages' own tar streams already say who owns what. Elsewhere, or without a network, the
 * checkout's own files stand in.
 */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { formatSize } from '../../src/lib/units.ts'
import { TarWriter } from './tar-writer.ts'

const exec = promisify(execFile)

/** Enough of Debian to `chroot` into. Small ones with setuid programs, libraries that get security updates. */
const PACKAGES = [
  ...[
    'base-files',
    'bash',
    'coreutils',
    'dash',
    'debianutils',
    'findutils',
    'grep',
    'gzip',
    'hostname',
    'sed',
  ],
  ...['login', 'mount', 'passwd', 'tar', 'util-linux', 'tzdata', 'openssl', 'perl-base', 'ca-certificates'],
  ...[
    'libc6',
    'libssl3',
    'libtinfo6',
    'libselinux1',
    'libpcre2-8-0',
    'libacl1',
    'libattr1',
    'libgmp10',
    'zlib1g',
  ],
]

/** New in build 2. */
const ADDED_PACKAGES = ['busybox-static']

const BUILD_1_TIME = Date.UTC(2026, 0, 15) / 1000
const BUILD_2_TIME = Date.UTC(2026, 1, 15) / 1000

/** What of the checkout stands in for packages where there are none: this much of node_modules. */
const STAND_IN_BYTES = 30e6

/** Buffer for `dpkg-deb --fsys-tarfile`: no package of the list comes near. */
const MAX_PACKAGE_BYTES = 400e6

/** Makes the builds in `dir`, unless they are there already. Progress goes to `say`. */
export async function makeDemoBuilds(dir: string, say: (line: string) => void): Promise<void> {
  if (existsSync(join(dir, 'made'))) return say(`Using the builds in ${dir} (delete it to make them again).`)
  mkdirSync(dir, { recursive: true })
  const origin = (await hasDebianTools()) ? 'packages' : 'checkout'
  let builds: [TarWriter, TarWriter]
  try {
    builds = origin === 'packages' ? await fromPackages(dir, say) : fromCheckout(say)
  } catch (error) {
    if (origin === 'checkout') throw error
    say(`That failed: ${firstLine(error)}`)
    builds = fromCheckout(say)
  }
  for (const [index, build] of builds.entries()) {
    const tar = build.finish()
    const name = index === 0 ? '1.tar.gz' : '2.tar.zst'
    const archive = index === 0 ? gzipSync(tar) : zstdCompressSync(tar)
    writeFileSync(join(dir, name), archive)
    const digest = createHash('sha256').update(archive).digest('hex')
    writeFileSync(join(dir, `${name}.sha256`), `${digest}  ${name}\n`)
    say(
      `Build ${index + 1}: ${build.entries} entries, ${formatSize(tar.length)}, published as ${name} (${formatSize(archive.length)})`,
    )
  }
  writeFileSync(join(dir, 'made'), '')
}

// ---------------------------------------------------------------------------------------------------
// From Debian packages.

async function hasDebianTools(): Promise<boolean> {
  try {
    await exec('dpkg-deb', ['--version'])
    await exec('apt-get', ['--version'])
    return true
  } catch {
    return false
  }
}

async function fromPackages(dir: string, say: (line: string) => void): Promise<[TarWriter, TarWriter]> {
  const downloads = join(dir, 'packages')
  mkdirSync(downloads, { recursive: true })
  const apt = await aptWithLists(dir, say)
  const versions = await apt.versions([...PACKAGES, ...ADDED_PACKAGES])
  const known = (names: readonly string[]): string[] => names.filter((name) => versions.has(name))
  const oldest = known(PACKAGES).map((name) => `${name}=${versions.get(name)!.at(-1)}`)
  const newest = known([...PACKAGES, ...ADDED_PACKAGES]).map((name) => `${name}=${versions.get(name)![0]}`)
  const upgraded = oldest.filter((one) => !newest.includes(one))
  if (oldest.length < PACKAGES.length / 2) throw new Error('apt knows too few of the packages')
  say(
    `Downloading ${newest.length + upgraded.length} Debian packages (${upgraded.length} in two versions) ...`,
  )
  await apt.download([...new Set([...oldest, ...newest])], downloads)

  const build = async (packages: readonly string[], number: 1 | 2): Promise<TarWriter> => {
    const tar = new TarWriter(number === 1 ? BUILD_1_TIME : BUILD_2_TIME)
    addSystemFiles(tar, number)
    for (const one of packages) {
      const { stdout } = await exec('dpkg-deb', ['--fsys-tarfile', packageFile(downloads, one)], {
        encoding: 'buffer',
        maxBuffer: MAX_PACKAGE_BYTES,
      })
      tar.merge(stdout)
    }
    return tar
  }
  return [await build(oldest, 1), await build(newest, 2)]
}

interface Apt {
  /** The versions on offer of each package, newest first. */
  versions(packages: readonly string[]): Promise<Map<string, string[]>>
  download(packages: readonly string[], into: string): Promise<void>
}

/** apt with package lists: the system's, or where those are empty (containers) our own copy of them. */
async function aptWithLists(dir: string, say: (line: string) => void): Promise<Apt> {
  const state = join(dir, 'apt')
  const ours = [
    ...['-o', `Dir::State::lists=${join(state, 'lists')}`, '-o', `Dir::Cache=${join(state, 'cache')}`],
    // The sandbox user of apt cannot write below a home directory.
    ...['-o', 'APT::Sandbox::User='],
  ]
  let options = ours.slice(4)
  const versions = async (packages: readonly string[]): Promise<Map<string, string[]>> => {
    const { stdout } = await exec('apt-cache', [...options, 'madison', ...packages])
    const found = new Map<string, string[]>()
    for (const line of stdout.split('\n')) {
      const [name, version, origin] = line.split('|').map((field) => field.trim())
      if (!name || !version || !origin?.includes('Packages')) continue
      found.set(name, [...new Set([...(found.get(name) ?? []), version])])
    }
    return found
  }
  if (!(await versions(['bash'])).has('bash')) {
    say('apt has no package lists: downloading a copy of them ...')
    mkdirSync(join(state, 'lists', 'partial'), { recursive: true })
    mkdirSync(join(state, 'cache', 'archives', 'partial'), { recursive: true })
    options = ours
    await exec('apt-get', [...options, '-qq', 'update'])
  }
  return {
    versions,
    download: async (packages, into) => {
      await exec('apt-get', [...options, '-qq', 'download', ...packages], { cwd: into })
    },
  }
}

/** The file that `apt-get download name=version` made: an epoch's colon is escaped in its name. */
function packageFile(downloads: string, nameAndVersion: string): string {
  const [name, version] = nameAndVersion.split('=') as [string, string]
  const prefix = `${name}_${version.replaceAll(':', '%3a')}_`
  const file = readdirSync(downloads).find((one) => one.startsWith(prefix))
  if (!file) throw new Error(`apt-get did not download ${nameAndVersion}`)
  return join(downloads, file)
}

// ---------------------------------------------------------------------------------------------------
// From the checkout.

function fromCheckout(say: (line: string) => void): [TarWriter, TarWriter] {
  say('Making the builds from the files of this checkout ...')
  const files: { path: string; content: Buffer }[] = []
  let total = 0
  const collect = (from: string, to: string): void => {
    for (const name of readdirSync(from).sort()) {
      const stat = statSync(join(from, name), { throwIfNoEntry: false })
      if (!stat || name === '.bin' || total > STAND_IN_BYTES) continue
      if (stat.isDirectory()) collect(join(from, name), `${to}/${name}`)
      else if (stat.isFile() && stat.size < STAND_IN_BYTES / 2) {
        total += stat.size
        files.push({ path: `${to}/${name}`, content: readFileSync(join(from, name)) })
      }
    }
  }
  collect('src', 'usr/share/upserv')
  collect('node_modules', 'usr/lib/node_modules')

  const build = (number: 1 | 2): TarWriter => {
    const tar = new TarWriter(number === 1 ? BUILD_1_TIME : BUILD_2_TIME)
    addSystemFiles(tar, number)
    for (const [index, { path, content }] of files.entries()) {
      if (number === 1 && index % 97 === 0) continue // added in build 2
      if (number === 2 && index % 89 === 1) continue // removed in build 2
      const isEdited = number === 2 && index % 13 === 0
      const middle = content.length >> 1
      addWithParents(
        tar,
        path,
        isEdited
          ? Buffer.concat([
              content.subarray(0, middle),
              Buffer.from('/* build 2 */'),
              content.subarray(middle),
            ])
          : content,
        { mtime: isEdited || number === 1 ? undefined : BUILD_1_TIME },
      )
    }
    return tar
  }
  return [build(1), build(2)]
}

function addWithParents(
  tar: TarWriter,
  path: string,
  content: Buffer,
  { mtime }: { mtime: number | undefined },
): void {
  const parts = path.split('/')
  for (let depth = 1; depth < parts.length; depth++) {
    const parent = parts.slice(0, depth).join('/')
    if (!tar.has(parent)) tar.directory(parent)
  }
  tar.file(path, content, mtime === undefined ? {} : { mtime })
}

// ---------------------------------------------------------------------------------------------------
// What a system has beside its packages.

function addSystemFiles(tar: TarWriter, build: 1 | 2): void {
  const child = { uid: 1000, gid: 1000, userName: 'child', groupName: 'child' }
  const disk = { gid: 6, groupName: 'disk', mode: 0o660 }
  tar.directory('', { mtime: BUILD_1_TIME })
  for (const path of [
    'dev',
    'etc',
    'home',
    'opt',
    'proc',
    'run',
    'sys',
    'usr',
    'usr/local',
    'usr/local/bin',
    'var',
  ]) {
    tar.directory(path, { mtime: BUILD_1_TIME })
  }
  tar.directory('root', { mode: 0o700 })
  tar.directory('tmp', { mode: 0o1777, mtime: BUILD_1_TIME })

  tar.charDevice('dev/null', 1, 3, { mode: 0o666, mtime: BUILD_1_TIME })
  tar.charDevice('dev/zero', 1, 5, { mode: 0o666, mtime: BUILD_1_TIME })
  tar.charDevice('dev/urandom', 1, 9, { mode: 0o666, mtime: BUILD_1_TIME })
  tar.charDevice('dev/tty', 5, 0, { mode: 0o666, gid: 5, groupName: 'tty', mtime: BUILD_1_TIME })
  tar.charDevice('dev/console', 5, 1, { mode: 0o600, mtime: BUILD_1_TIME })
  tar.blockDevice('dev/mmcblk0', 179, 0, { ...disk, mtime: BUILD_1_TIME })
  tar.blockDevice('dev/mmcblk0p1', 179, 1, { ...disk, mtime: BUILD_1_TIME })
  if (build === 2) tar.blockDevice('dev/mmcblk0p2', 179, 2, disk)
  tar.fifo('dev/initctl', { mode: 0o600, mtime: BUILD_1_TIME })

  tar.file('etc/passwd', 'root:x:0:0:root:/root:/bin/bash\nchild:x:1000:1000::/home/child:/bin/bash\n', {
    mtime: BUILD_1_TIME,
  })
  tar.file('etc/group', 'root:x:0:\ntty:x:5:\ndisk:x:6:\nchild:x:1000:\n', { mtime: BUILD_1_TIME })
  tar.file('etc/shadow', 'root:*:19000::::::\nchild:*:19000::::::\n', {
    mode: 0o640,
    gid: 42,
    groupName: 'shadow',
    mtime: BUILD_1_TIME,
  })
  tar.file('etc/hostname', 'laptop\n', { mtime: BUILD_1_TIME })
  tar.file('etc/build', `build ${build}\n`)
  tar.directory('home/child', { ...child, mode: 0o700, mtime: BUILD_1_TIME })
  tar.file('home/child/.profile', `# greets the child\necho "This is build ${build}."\n`, child)

  tar.file('usr/local/bin/build-number', '#!/bin/sh\nexec cat /etc/build\n', {
    mode: 0o755,
    mtime: BUILD_1_TIME,
  })
  tar.hardlink('usr/local/bin/which-build', 'usr/local/bin/build-number')
  tar.symlink('usr/local/bin/number', 'build-number', { mtime: BUILD_1_TIME })
  tar.file('usr/local/bin/set-build', '#!/bin/sh\necho "build $1" > /etc/build\n', {
    mode: 0o4755,
    mtime: BUILD_1_TIME,
  })
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split('\n')[0]!
}
