/** Keys and signatures, made by the tools that publishers use. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './processes.ts'

export interface Signer {
  /** File of the public key. */
  key: string
  /** The signature of a file. */
  sign(file: string): Promise<Buffer>
}

async function succeeds(program: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await run(program, args)
  assert.equal(code, 0, `${program} ${args.join(' ')}\n${stderr}`)
}

export async function minisigner(directory: string, name: string, { old = false } = {}): Promise<Signer> {
  const [key, secret] = [join(directory, `${name}.pub`), join(directory, `${name}.sec`)]
  await succeeds('minisign', ['-G', '-W', '-p', key, '-s', secret])
  return {
    key,
    sign: async (file) => {
      const signature = join(directory, `${name}.minisig`)
      await succeeds('minisign', ['-S', ...(old ? ['-l'] : []), '-s', secret, '-m', file, '-x', signature])
      return readFileSync(signature)
    },
  }
}

/** @param created faked time at which the key is made and signs; it is good for a year. */
export async function gpgSigner(
  directory: string,
  name: string,
  { armor = true, created }: { armor?: boolean; created?: string } = {},
): Promise<Signer> {
  const home = join(directory, name)
  mkdirSync(home, { mode: 0o700 })
  const faked = created === undefined ? [] : ['--faked-system-time', `${created}!`]
  const gpg = (...args: string[]): Promise<void> =>
    succeeds('gpg', [
      '--homedir',
      home,
      '--batch',
      '--yes',
      '--no-autostart',
      '--pinentry-mode',
      'loopback',
      '--passphrase',
      '',
      ...faked,
      ...args,
    ])
  const start = (...args: string[]): Promise<void> =>
    succeeds('gpg', [
      '--homedir',
      home,
      '--batch',
      '--yes',
      '--pinentry-mode',
      'loopback',
      '--passphrase',
      '',
      ...faked,
      ...args,
    ])
  await start(
    '--quick-generate-key',
    `${name} <${name}@example.org>`,
    'ed25519',
    'sign',
    created === undefined ? '0' : '1y',
  )
  const key = join(directory, `${name}.gpg-key`)
  await gpg(...(armor ? ['--armor'] : []), '--output', key, '--export')
  return {
    key,
    sign: async (file) => {
      const signature = join(directory, `${name}.signature`)
      await start(...(armor ? ['--armor'] : []), '--output', signature, '--detach-sign', file)
      return readFileSync(signature)
    },
  }
}

/** Ends the agent that gpg starts for a home directory. */
export async function stopAgents(directory: string, names: readonly string[]): Promise<void> {
  for (const name of names) await run('gpgconf', ['--homedir', join(directory, name), '--kill', 'gpg-agent'])
}
