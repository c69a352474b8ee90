/** What runs beside our own code: exact, listed, licensed, and here for a reason. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { licenceOf, runtimePackages, thirdParty } from '../../script/lib/runtime-packages.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const manifest = JSON.parse(read('package.json')) as Record<
  'dependencies' | 'devDependencies',
  Record<string, string>
>
/** Those that ask for nothing but their notice. */
const LICENCES = ['MIT', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause', 'Apache-2.0', '0BSD']

test('THIRD-PARTY.md is what the lock file says', () => {
  assert.equal(read('THIRD-PARTY.md'), thirdParty(), 'type: node script/lib/runtime-packages.ts')
})

test('every package that runs has a licence that goes with ours', () => {
  for (const each of runtimePackages()) {
    const { id } = licenceOf(each)
    assert.ok(LICENCES.includes(id), `${each.name} is under ${id}`)
  }
})

test('versions are exact, and the lock file has a digest for each', () => {
  for (const group of [manifest.dependencies, manifest.devDependencies])
    for (const [name, version] of Object.entries(group)) assert.match(version, /^\d+\.\d+\.\d+$/, name)
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<
      string,
      { integrity?: string; resolved?: string; hasInstallScript?: boolean; dev?: boolean }
    >
  }
  for (const [path, { integrity, resolved, hasInstallScript, dev }] of Object.entries(packages)) {
    if (path === '') continue
    assert.match(integrity ?? '', /^sha512-/, path)
    assert.match(resolved ?? 'https://registry.npmjs.org/', /^https:\/\/registry\.npmjs\.org\//, path)
    assert.ok(!hasInstallScript || dev, `${path} would run a script when it is installed`)
  }
})

test('every package that runs is used, and has its reason in the ADR', () => {
  const sources = globSync('src/**/*.ts', { cwd: ROOT })
    .filter((path) => !path.endsWith('.test.ts'))
    .map(read)
    .join('\n')
  const adr = read('docs/adr/0009-dependencies.md')
  for (const name of Object.keys(manifest.dependencies)) {
    assert.ok(
      new RegExp(`(?:from |import\\(|require\\()'${name}(?:/|')`).test(sources),
      `nothing uses ${name}`,
    )
    assert.ok(
      adr.includes(`\n| ${name} |`),
      `docs/adr/0009-dependencies.md does not say why there is ${name}`,
    )
  }
  for (const [, name] of adr.matchAll(/^\| ([a-z0-9-]+) \|/gm))
    assert.ok(name === 'package' || name! in manifest.dependencies, `${name} is not here any more`)
})
