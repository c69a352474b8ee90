/** Checksums and signatures: what is required, what is there, and what is right. For every kind of source. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { findProgram } from '../../src/lib/find-program.ts'
import type { SourceConfig } from '../../src/source/source.ts'
import { buildsOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import { rsyncEnds } from '../support/rsync.ts'
import { makeScratch } from '../support/scratch.ts'
import { gpgSigner, minisigner, type Signer, stopAgents } from '../support/signing.ts'
import { content, file, quickSource, startUpstream } from './source-upstream.ts'

const ARCHIVE = content(300_000)
const OTHER = content(300_000, 2)
const SUMS = `${createHash('sha256').update(OTHER).digest('hex')}  801\n${createHash('sha256').update(ARCHIVE).digest('hex')}  802\n`
const SHA512 = createHash('sha512').update(ARCHIVE).digest('hex')

const tools = ['gpg', 'gpgv', 'minisign']
const found = await Promise.all(tools.map((tool) => findProgram(tool)))
const skip = found.includes(undefined) && `needs ${tools.join(', ')}`

const scratch = makeScratch('trust')
const signers: Record<string, Signer> = {}
const GPGS = ['gpg', 'stranger', 'old']
before(async () => {
  if (skip) return
  signers.minisign = await minisigner(scratch.path, 'minisign')
  signers.legacy = await minisigner(scratch.path, 'legacy', { old: true })
  signers.thief = await minisigner(scratch.path, 'thief')
  signers.gpg = await gpgSigner(scratch.path, 'gpg')
  signers.stranger = await gpgSigner(scratch.path, 'stranger', { armor: false })
  signers.old = await gpgSigner(scratch.path, 'old', { created: '20100101T000000' })
})
after(async () => {
  if (!skip) await stopAgents(scratch.path, GPGS)
  scratch[Symbol.dispose]()
})

interface Case {
  name: string
  /** File upstream: who signs what. */
  signatures?: Record<string, [signer: string, what: 'archive' | 'sums' | 'other']>
  files?: Record<string, string>
  keys?: string[]
  config?: Partial<SourceConfig>
  /** In place of the archive that was signed. */
  served?: Uint8Array
  vouchers?: RegExp
  error?: RegExp
}

const SIGNED = { signature: '{url}.minisig' }
const CASES: Case[] = [
  {
    name: 'minisign',
    signatures: { '802.minisig': ['minisign', 'archive'] },
    keys: ['minisign'],
    config: SIGNED,
    vouchers: /^minisign key [0-9A-F]{16} \(timestamp:/,
  },
  {
    name: 'minisign, found by its name',
    signatures: { '802.minisig': ['minisign', 'archive'] },
    keys: ['thief', 'minisign'],
    vouchers: /^minisign key/,
  },
  {
    name: 'minisign of another archive',
    signatures: { '802.minisig': ['minisign', 'other'] },
    keys: ['minisign'],
    error: /is not what the minisign key/,
  },
  {
    name: 'minisign by another key',
    signatures: { '802.minisig': ['thief', 'archive'] },
    keys: ['minisign'],
    error: /not one of the source's keys/,
  },
  {
    name: 'minisign by another key, not required',
    signatures: { '802.minisig': ['thief', 'archive'] },
    keys: ['minisign'],
    config: { signatureRequired: false },
    error: /not one of the source's keys/,
  },
  {
    name: "minisign's old form of sums",
    signatures: { 'SUMS.minisig': ['legacy', 'sums'] },
    files: { SUMS },
    keys: ['legacy'],
    config: { checksum: '/SUMS', signature: '{checksum}.minisig' },
    vouchers: /^minisign key/,
  },
  {
    name: 'GPG, armored',
    signatures: { '802.asc': ['gpg', 'archive'] },
    keys: ['gpg'],
    vouchers: /^gpg key [0-9A-F]{40} \(gpg <gpg@example\.org>\)$/,
  },
  {
    name: 'GPG, binary',
    signatures: { '802.sig': ['stranger', 'archive'] },
    keys: ['gpg', 'stranger'],
    config: { signature: '{url}.sig' },
    vouchers: /stranger@/,
  },
  {
    name: 'GPG of another archive',
    signatures: { '802.asc': ['gpg', 'other'] },
    keys: ['gpg'],
    error: /is not what was signed/,
  },
  {
    name: 'GPG by another key',
    signatures: { '802.asc': ['stranger', 'archive'] },
    keys: ['gpg'],
    error: /is by the GPG key [0-9A-F]+, which is not one/,
  },
  {
    name: 'GPG by a key that has expired',
    signatures: { '802.asc': ['old', 'archive'] },
    keys: ['old'],
    error: /has expired/,
  },
  {
    name: 'GPG where only minisign is known',
    signatures: { '802.asc': ['gpg', 'archive'] },
    keys: ['minisign'],
    error: /is no minisign signature/,
  },
  { name: 'what is no signature', files: { '802.asc': '<html>' }, keys: ['gpg'], error: /is no signature/ },
  {
    name: 'SHA256SUMS with a signature of GPG',
    signatures: { 'SUMS.asc': ['gpg', 'sums'] },
    files: { SUMS },
    keys: ['gpg'],
    config: { checksum: '/SUMS' },
    vouchers: /^gpg key/,
  },
  {
    name: 'SHA256SUMS that were changed',
    signatures: { 'SUMS.asc': ['gpg', 'sums'] },
    files: { SUMS: `${SUMS}\n` },
    keys: ['gpg'],
    config: { checksum: '/SUMS', signature: '{checksum}.asc' },
    error: /SUMS is not what was signed/,
  },
  {
    name: 'a signature that is required and is not there',
    keys: ['gpg'],
    error: /no signature was published/,
  },
  {
    name: 'a signature that would be checked and is not there',
    keys: ['gpg'],
    config: { signatureRequired: false },
  },
  { name: 'sha512 beside it', files: { '802.sha512': SHA512 } },
  {
    name: 'a checksum that is required and is not there',
    config: { checksumRequired: true },
    error: /no checksum was published/,
  },
  {
    name: 'a checksum file that need not be there',
    config: { checksum: '{url}.md5', checksumRequired: false },
  },
]

for (const kind of ['http', 'file'])
  for (const { name, signatures = {}, files = {}, keys = [], config = {}, vouchers, error } of CASES)
    test(`${kind}: ${name}`, { skip }, async (t) => {
      const place = join(scratch.path, `${kind} ${name}`)
      mkdirSync(place)
      const all: Record<string, Uint8Array> = { 802: ARCHIVE }
      for (const [path, text] of Object.entries(files)) all[path] = Buffer.from(text)
      for (const [path, [signer, what]] of Object.entries(signatures)) {
        const message = join(place, 'message')
        writeFileSync(message, { archive: ARCHIVE, sums: SUMS, other: OTHER }[what])
        all[path] = await signers[signer]!.sign(message)
      }
      for (const [path, bytes] of Object.entries(all)) writeFileSync(join(place, path), bytes)
      const replies = Object.entries(all).map(([path, bytes]) => [`/${path}`, [file(bytes)]])
      const base =
        kind === 'file'
          ? pathToFileURL(place).href
          : (await startUpstream(t, Object.fromEntries(replies))).url
      const checksum = config.checksum?.replace(/^\//, `${base}/`)
      const source = quickSource(
        { url: base },
        { ...config, checksum, keys: keys.map((key) => signers[key]!.key) },
      )

      const vouch = async (): Promise<string> => {
        const options = { signal: new AbortController().signal, onEvent: () => {} }
        await using download = await source.locate('802', options)
        for await (const chunk of download.bytes()) await download.signature?.update(chunk)
        return download.checksumSigner ?? (await download.signature?.finish()) ?? ''
      }
      if (error) await assert.rejects(vouch(), { message: error })
      else assert.match(await vouch(), vouchers ?? /^$/)
    })

const WRONG: { name: string; config: Partial<SourceConfig>; message: RegExp }[] = [
  { name: 'no keys', config: { signature: '{url}.asc' }, message: /there are no keys/ },
  { name: 'no such file', config: { keys: ['/nonexistent/key'] }, message: /cannot be read/ },
  { name: 'no key in it', config: { keys: ['/etc/passwd'] }, message: /holds no keys/ },
]
for (const { name, config, message } of WRONG)
  test(`a configuration with ${name} is refused`, () => {
    assert.throws(() => quickSource({ url: 'http://h' }, config), { code: 'CONFIG_BAD', message })
  })

test('a build is seen once it was checked, and says by whom; one that was not signed never is', {
  skip,
}, async () => {
  await using mirror = new Mirror()
  for (const id of ['1', '2']) await mirror.publish(id, randomTree(Number(id), 3, 10_000), { sha256: true })
  writeFileSync(`${mirror.archive('1')}.minisig`, await signers.minisign!.sign(mirror.archive('1')))
  writeFileSync(`${mirror.archive('2')}.minisig`, await signers.thief!.sign(mirror.archive('2')))
  await mirror.startNginx()
  const config = mirror.path('upserv.toml')
  writeFileSync(
    config,
    `[[source]]\nname = "signed"\nurl = "${mirror.nginx.url}/{build}"\nkeys = ["${signers.minisign!.key}"]\n`,
  )
  const upserv = await mirror.startUpserv({ config, sources: [] })
  await mirror.assertServes(upserv, '1')
  const refused = await mirror.sync(upserv, '2', 5)
  assert.match(refused.stderr + refused.stdout, /@ERROR: .*not one of the source's keys/)
  assert.deepEqual(buildsOnDisk(mirror.data), ['1'])
  assert.deepEqual(mirror.incoming(), [])
  assert.match(
    (await rsyncEnds(0, [`${upserv.url}/`])).stdout,
    /build-1 .*checked by sha256, minisign key [0-9A-F]{16}\n/,
  )
  assert.match((await upserv.cli(['list'])).stdout, /signed +sha256, minisign key [0-9A-F]{16}\n/)
  const [listed] = JSON.parse((await upserv.cli(['list', '--json'])).stdout)
  assert.match(listed.vouchers.join('; '), /sha256 in http:.*; minisign key [0-9A-F]{16}/)
})
