/** Packages as script/package makes them, from copies of this checkout that lie elsewhere. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findProgram } from '../../src/lib/find-program.ts'
import { run } from './processes.ts'

const CHECKOUT = fileURLToPath(new URL('../..', import.meta.url))
/** Compiling, stripping the runtime and packing take seconds; this is for a machine that is shared. */
const PACK_MS = 300_000

/** Why no Debian package can be made here, or false. */
export async function whyNoDeb(): Promise<string | false> {
  for (const [name, debianPackage] of [
    ['dpkg-buildpackage', 'dpkg-dev'],
    ['dh', 'debhelper'],
    ['strip', 'binutils'],
  ] as const) {
    if ((await findProgram(name)) === undefined) return `needs ${name}: apt-get install ${debianPackage}`
  }
  return false
}

/** A copy of what a commit of this checkout would hold, changes included, with the same npm packages. */
export function copyCheckout(to: string): void {
  mkdirSync(to, { recursive: true })
  const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: CHECKOUT,
  })
  execFileSync('rsync', ['-a', '--from0', '--files-from=-', '--ignore-missing-args', CHECKOUT, `${to}/`], {
    input: files,
  })
  symlinkSync(join(CHECKOUT, 'node_modules'), join(to, 'node_modules'))
}

/** Runs script/package there. @returns the packages, by the beginning of their names. */
export async function pack(
  checkout: string,
  out: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<{ deb: string; update: string; npm: string }> {
  const { code, stderr, command } = await run(
    join(checkout, 'script/package'),
    ['--out', out, '--fast', ...args],
    {
      env: { ...process.env, ...env, SOURCE_DATE_EPOCH: '1750000000' },
      timeoutMs: PACK_MS,
    },
  )
  if (code !== 0) throw new Error(`${command}\nended with ${code}\n${stderr}`)
  const find = (pattern: RegExp): string => {
    const name = readdirSync(out).find((name) => pattern.test(name))
    return name === undefined ? '' : join(out, name)
  }
  return { deb: find(/^upserv_.*\.deb$/), update: find(/^upserv-update_/), npm: find(/\.tgz$/) }
}
