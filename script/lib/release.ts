/** What `script/release` does beside git: versions and dates in files, the notes, the SBOM. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { notesOf, withRelease } from './changelog.ts'
import { isReachable, maintainer } from './maintainer.ts'
import { machineArch } from './runtime.ts'
import { runtimePackages } from './runtime-packages.ts'

const ROOT = resolve(import.meta.dirname, '../..')
/** What of a release a word of script/reproduce stands for; without one, all. */
const KINDS: Record<string, RegExp> = { npm: /\.tgz$/, deb: /\.deb$/ }
const [step, version = '', out = ''] = process.argv.slice(2)

if (step === 'answer') answer()
else if (step === 'prepare') prepare()
else if (step === 'describe') describe()
else if (step === 'attest') attest()
else if (step === 'compare') compare(process.argv.slice(3))
else
  throw new Error(
    'Usage: release.ts answer | prepare VERSION | describe VERSION DIRECTORY | attest VERSION DIRECTORY | compare STATEMENT PUBLISHED AGAIN [npm] [deb]',
  )

/** Who has a package finds in it whom to tell of a hole. */
function answer(): void {
  if (isReachable(maintainer())) return
  console.error(
    `Nobody reads ${maintainer()}, whom the packages would name: set DEBEMAIL, and DEBFULLNAME, to who answers for them.`,
  )
  process.exitCode = 78
}

function prepare(): void {
  for (const file of ['package.json', 'package-lock.json']) {
    const manifest = JSON.parse(readFileSync(join(ROOT, file), 'utf8')) as {
      version: string
      packages?: Record<string, { version: string }>
    }
    manifest.version = version
    if (manifest.packages) manifest.packages['']!.version = version
    writeFileSync(join(ROOT, file), `${JSON.stringify(manifest, null, 2)}\n`)
  }
  const changelog = join(ROOT, 'CHANGELOG.md')
  const today = new Date().toISOString().slice(0, 10)
  writeFileSync(changelog, withRelease(readFileSync(changelog, 'utf8'), version, today))
}

function describe(): void {
  writeFileSync(
    join(out, 'NOTES.md'),
    `${notesOf(readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8'), version)}\n`,
  )
  writeFileSync(join(out, `upserv-${version}.cdx.json`), `${JSON.stringify(sbom(), null, 2)}\n`)
}

/**
 * How the files of a release came to be: a statement as in-toto and SLSA have them, about every file that is there.
 * It holds nothing that another build of the same commit would not say, so it is reproduced with them.
 */
function attest(): void {
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim()
  const sha256 = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')
  const name = `upserv-${version}.provenance.json`
  const statement = {
    _type: 'https://in-toto.io/Statement/v1',
    subject: readdirSync(out)
      .filter((file) => file !== name && file !== 'SHA256SUMS')
      .sort()
      .map((file) => ({ name: file, digest: { sha256: sha256(join(out, file)) } })),
    predicateType: 'https://slsa.dev/provenance/v1',
    predicate: {
      buildDefinition: {
        buildType: 'urn:upserv:script/release',
        externalParameters: {
          version,
          architectures: (process.env.UPSERV_ARCH || machineArch()).split(','),
          maintainer: maintainer(),
          fast: process.env.UPSERV_FAST === 'yes',
        },
        internalParameters: {
          sourceDateEpoch: Number(process.env.SOURCE_DATE_EPOCH ?? git('log', '-1', '--format=%ct')),
        },
        resolvedDependencies: [
          {
            name: 'checkout',
            digest: { gitCommit: git('rev-parse', 'HEAD'), gitTree: git('rev-parse', 'HEAD^{tree}') },
          },
          { name: 'package-lock.json', digest: { sha256: sha256(join(ROOT, 'package-lock.json')) } },
          { name: `node ${process.versions.node}`, digest: { sha256: sha256(process.execPath) } },
          ...runtimePackages().map((each) => ({
            uri: `pkg:npm/${each.name.replace('@', '%40')}@${each.version}`,
            digest: { sha512: Buffer.from(each.integrity.replace('sha512-', ''), 'base64').toString('hex') },
          })),
        ],
      },
      runDetails: { builder: { id: 'urn:upserv:checkout' } },
    },
  }
  writeFileSync(join(out, name), `${JSON.stringify(statement, null, 2)}\n`)
}

/** Says of each file of a statement whether it came out the same: what was not made again is not. */
function compare([statement = '', published = '', again = '', ...kinds]: readonly string[]): void {
  const { subject } = JSON.parse(readFileSync(statement, 'utf8')) as {
    subject: { name: string; digest: { sha256: string } }[]
  }
  const sha256 = (path: string): string | undefined =>
    existsSync(path) ? createHash('sha256').update(readFileSync(path)).digest('hex') : undefined
  for (const { name, digest } of subject) {
    if (kinds.length > 0 && !kinds.some((kind) => KINDS[kind]!.test(name))) continue
    const [made, there] = [sha256(join(again, name)), sha256(join(published, name))]
    const says =
      made === undefined
        ? 'NOT MADE'
        : made !== digest.sha256 || made !== (there ?? made)
          ? 'ANOTHER'
          : there === undefined
            ? 'as the statement says; not in the directory'
            : 'the same'
    console.log(`${name}: ${says}`)
    if (/^[A-Z]/.test(says)) process.exitCode = 1
  }
}

interface Bom {
  serialNumber: string
  metadata: { timestamp: string; tools?: unknown; component: { name: string } }
  components: object[]
}

/** npm's, without what would be another one each time, and with the runtime that the Debian package brings. */
function sbom(): Bom {
  const bom = bomOfNpm()
  const epoch =
    process.env.SOURCE_DATE_EPOCH ??
    execFileSync('git', ['log', '-1', '--format=%ct'], { cwd: ROOT, encoding: 'utf8' })
  bom.metadata.timestamp = new Date(Number(epoch) * 1000).toISOString()
  bom.metadata.component.name = 'upserv'
  delete bom.metadata.tools
  const { node } = process.versions
  bom.components.push({
    'bom-ref': `node@${node}`,
    type: 'application',
    name: 'node',
    version: node,
    scope: 'optional',
    description: 'the runtime in the Debian package',
    purl: `pkg:generic/node@${node}`,
    licenses: [{ license: { id: 'MIT' } }],
  })
  const digest = createHash('sha256')
    .update(JSON.stringify({ ...bom, serialNumber: '' }))
    .digest('hex')
  // A UUID of version 8 (RFC 9562): its bits are ours to choose.
  bom.serialNumber = `urn:uuid:${digest.slice(0, 8)}-${digest.slice(8, 12)}-8${digest.slice(13, 16)}-8${digest.slice(17, 20)}-${digest.slice(20, 32)}`
  return bom
}

/**
 * npm leaves out with `--omit=dev` what we use in tests ourselves, although something that runs needs it too. So it
 * is shown a package that has nothing for development.
 */
function bomOfNpm(): Bom {
  const { devDependencies, ...manifest } = readJson('package.json')
  const lock = readJson('package-lock.json') as { packages: Record<string, Record<string, unknown>> }
  const packages = Object.fromEntries(Object.entries(lock.packages).filter(([, { dev }]) => dev !== true))
  packages[''] = { ...packages[''], devDependencies: {} }
  const scratch = mkdtempSync(join(tmpdir(), 'upserv-sbom-'))
  try {
    writeFileSync(join(scratch, 'package.json'), JSON.stringify(manifest))
    writeFileSync(join(scratch, 'package-lock.json'), JSON.stringify({ ...lock, packages }))
    const args = ['sbom', '--sbom-format=cyclonedx', '--omit=optional', '--package-lock-only']
    return JSON.parse(execFileSync('npm', args, { cwd: scratch, encoding: 'utf8' })) as Bom
  } finally {
    rmSync(scratch, { recursive: true })
  }
}

function readJson(path: string): Record<string, unknown> {
  return JSON.parse(readFileSync(join(ROOT, path), 'utf8')) as Record<string, unknown>
}
