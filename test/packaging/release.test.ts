/** script/release, in a repository of its own: what it commits, what it makes, and that it makes it twice alike. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { debianChangelog, notesOf, withRelease } from '../../script/lib/changelog.ts'
import { isReachable, maintainer } from '../../script/lib/maintainer.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { copyCheckout, whyNoDeb } from '../support/packages.ts'
import { type RunResult, run } from '../support/processes.ts'
import { makeScratch } from '../support/scratch.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const PATIENCE_MS = 300_000
const RELEASED = '7.8.9'

test('a release: commit, tag, packages, sums, SBOM, provenance', {
  skip: await whyNoDeb(),
  timeout: 3 * PATIENCE_MS,
}, async () => {
  using scratch = makeScratch('release')
  const checkout = join(scratch.path, 'checkout')
  copyCheckout(checkout)
  const env = {
    ...process.env,
    GIT_CONFIG_GLOBAL: '/dev/null',
    ...{
      GIT_AUTHOR_NAME: 'a',
      GIT_AUTHOR_EMAIL: 'a@localhost',
      GIT_COMMITTER_NAME: 'a',
      GIT_COMMITTER_EMAIL: 'a@localhost',
    },
  }
  for (const name of ['SOURCE_DATE_EPOCH', 'DEBEMAIL', 'DEBFULLNAME']) delete (env as NodeJS.ProcessEnv)[name]
  const go = async (program: string, ...args: string[]): Promise<RunResult> => {
    const result = await run(program, args, { cwd: checkout, env, timeoutMs: PATIENCE_MS })
    assert.equal(result.code, 0, `${result.command}\n${result.stdout}${result.stderr}`)
    return result
  }
  await go('git', 'init', '-q')
  // node_modules is a link here, which .gitignore's pattern for a directory does not match.
  writeFileSync(join(checkout, '.git/info/exclude'), 'node_modules\n')
  await go('git', 'add', '-A')
  await go('git', 'commit', '-q', '-m', 'all')

  for (const wrong of ['1', 'v1.2.3', '1.2']) {
    assert.equal((await run('script/release', [wrong], { cwd: checkout, env })).code, 64)
  }
  writeFileSync(join(checkout, 'README.md'), 'changed')
  const dirty = await run('script/release', [RELEASED], { cwd: checkout, env })
  assert.deepEqual([dirty.code, /not committed/.test(dirty.stderr)], [1, true])
  await go('git', 'checkout', '-q', 'README.md')

  const noAddress = await run('script/release', [RELEASED], { cwd: checkout, env })
  assert.deepEqual([noAddress.code, /set DEBEMAIL/.test(noAddress.stderr)], [78, true])
  await using registry = await registryWithAdvisory()
  const withAddress = (port: number) => ({
    ...env,
    ...{ DEBEMAIL: 'ana@upserv.net', npm_config_registry: `http://127.0.0.1:${port}/` },
    ...{ npm_config_fetch_retries: '0', npm_config_cache: join(scratch.path, 'npm') },
  })
  const known = await run('script/release', [RELEASED], { cwd: checkout, env: withAddress(registry.port) })
  assert.deepEqual([known.code, /There is no release with these/.test(known.stderr)], [1, true], known.stderr)
  assert.match(known.stdout, /a hole for this test/)
  assert.equal((await go('git', 'tag')).stdout, '', 'nothing was made')

  const out = join(scratch.path, 'out')
  // As whoever hands them out makes them: the packages name them.
  const maintained = { ...env, DEBFULLNAME: 'Ana Operator', DEBEMAIL: 'ana@upserv.net' }
  const released = await run('script/release', ['--fast', '--out', out, RELEASED], {
    cwd: checkout,
    env: maintained,
    timeoutMs: PATIENCE_MS,
  })
  assert.equal(released.code, 0, released.stdout + released.stderr)
  assert.equal((await go('git', 'describe', '--tags')).stdout.trim(), `v${RELEASED}`)
  assert.equal((await go('git', 'status', '--porcelain')).stdout, '')
  assert.match(
    readFileSync(join(checkout, 'CHANGELOG.md'), 'utf8'),
    /^## Unreleased\n\n## 7\.8\.9 \(\d{4}-\d\d-\d\d\)\n/m,
  )
  const names = readdirSync(out).sort()
  const [, arch] = /^upserv_7\.8\.9_(.+)\.deb$/m.exec(names.join('\n'))!
  assert.deepEqual(names, [
    'NOTES.md',
    'SHA256SUMS',
    'upserv-7.8.9.cdx.json',
    'upserv-7.8.9.provenance.json',
    'upserv-7.8.9.tgz',
    'upserv-update_7.8.9_all.deb',
    `upserv_7.8.9_${arch}.deb`,
  ])
  const sums = await run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: out })
  assert.equal(sums.code, 0, sums.stdout)
  assert.equal(sums.stdout.trim().split('\n').length, names.length - 1)
  const bom = JSON.parse(readFileSync(join(out, 'upserv-7.8.9.cdx.json'), 'utf8')) as {
    metadata: { component: { name: string; version: string } }
    components: { name: string; version: string }[]
  }
  assert.deepEqual([bom.metadata.component.name, bom.metadata.component.version], ['upserv', RELEASED])
  const { packages } = JSON.parse(readFileSync(join(checkout, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version: string; dev?: boolean; optional?: boolean }>
  }
  const installed = Object.entries(packages)
    .filter(([path, { dev, optional }]) => path && !dev && !optional)
    .map(([path, { version }]) => `${path.replace(/^.*node_modules\//, '')} ${version}`)
  assert.deepEqual(
    bom.components.map(({ name, version }) => `${name} ${version}`).sort(),
    [...installed, `node ${process.versions.node}`].sort(),
  )

  const provenance = JSON.parse(readFileSync(join(out, 'upserv-7.8.9.provenance.json'), 'utf8')) as {
    subject: { name: string; digest: { sha256: string } }[]
    predicate: {
      buildDefinition: {
        externalParameters: object
        resolvedDependencies: { name?: string; digest: Record<string, string> }[]
      }
    }
  }
  const listed = readFileSync(join(out, 'SHA256SUMS'), 'utf8')
  for (const { name, digest } of provenance.subject)
    assert.ok(listed.includes(`${digest.sha256}  ${name}\n`), name)
  assert.equal(provenance.subject.length, names.length - 2)
  assert.deepEqual(provenance.predicate.buildDefinition.externalParameters, {
    version: RELEASED,
    architectures: [arch],
    maintainer: 'Ana Operator <ana@upserv.net>',
    fast: true,
  })
  const [source] = provenance.predicate.buildDefinition.resolvedDependencies
  assert.equal(source!.digest.gitCommit, (await go('git', 'rev-parse', 'HEAD')).stdout.trim())

  // A registry that does not answer stops no release; here another commit that has the tag does, behind it.
  await go('git', 'commit', '-q', '--allow-empty', '-m', 'later')
  await registry[Symbol.asyncDispose]()
  const unasked = await run('script/release', [RELEASED], { cwd: checkout, env: withAddress(registry.port) })
  assert.equal(unasked.code, 1)
  assert.match(
    unasked.stderr,
    /made without having asked for advisories[\s\S]*There is a version 7\.8\.9 already/,
  )
  await go('git', 'reset', '-q', '--hard', 'HEAD~')

  // Who has the files and the commit can make them again, elsewhere, and sees where they differ, or were not made.
  const subjects = provenance.subject.map(({ name }) => name)
  const elsewhere = join(scratch.path, 'somewhere/else')
  await go('git', 'clone', '-q', checkout, elsewhere)
  symlinkSync(realpathSync(join(checkout, 'node_modules')), join(elsewhere, 'node_modules'))
  const same = await run('script/reproduce', [out], { cwd: elsewhere, env, timeoutMs: PATIENCE_MS })
  assert.equal(same.code, 0, same.stdout + same.stderr)
  assert.deepEqual(
    same.stdout.trim().split('\n'),
    subjects.map((name) => `${name}: the same`),
  )
  writeFileSync(join(out, 'upserv-7.8.9.tgz'), 'another')
  const other = await run('script/reproduce', [out, 'npm'], { cwd: checkout, env, timeoutMs: PATIENCE_MS })
  assert.deepEqual([other.code, other.stdout], [1, 'upserv-7.8.9.tgz: ANOTHER\n'], other.stderr)
  const compare = ['script/lib/release.ts', 'compare', join(out, 'upserv-7.8.9.provenance.json'), out]
  const none = await run(process.execPath, [...compare, scratch.path, 'deb'], { cwd: checkout, env })
  assert.deepEqual(
    [none.code, none.stdout],
    [1, `upserv-update_7.8.9_all.deb: NOT MADE\nupserv_7.8.9_${arch}.deb: NOT MADE\n`],
    none.stderr,
  )

  const again = join(scratch.path, 'again')
  mkdirSync(again)
  await go(process.execPath, 'script/lib/release.ts', 'describe', RELEASED, again)
  for (const name of readdirSync(again))
    assert.deepEqual(readFileSync(join(again, name)), readFileSync(join(out, name)), name)
  assert.equal(readdirSync(again).length, 2)
})

test('script/package names what it takes and is not installed', async () => {
  using scratch = makeScratch('package')
  for (const name of ['dirname', 'uname', 'npm'])
    symlinkSync((await findProgram(name)) ?? '/nowhere', join(scratch.path, name))
  const { code, stderr } = await run(
    join(ROOT, 'script/package'),
    ['--out', scratch.path, '--arch', 'amd64,arm64', 'deb'],
    { env: { ...process.env, PATH: scratch.path } },
  )
  assert.equal(code, 69, stderr)
  assert.match(stderr, /^ {2}readelf, of binutils$/m)
  assert.match(stderr, /^ {2}(?:aarch64|x86_64)-linux-gnu-strip, of binutils-/m)
  assert.doesNotMatch(stderr, /ENOENT|^ +at /m)
})

/** A registry of packages that knows of one hole, in a package that runs. */
async function registryWithAdvisory(): Promise<AsyncDisposable & { port: number }> {
  const advisory = { id: 1, url: 'http://127.0.0.1/1', title: 'a hole for this test', severity: 'high' }
  const server = createServer((request, response) => {
    request.resume()
    const isQuestion = request.url === '/-/npm/v1/security/advisories/bulk'
    response.writeHead(isQuestion ? 200 : 404, { 'content-type': 'application/json' })
    response.end(isQuestion ? JSON.stringify({ undici: [{ ...advisory, vulnerable_versions: '*' }] }) : '{}')
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      if (!server.listening) return
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

test('an address that nobody can have is told from one that somebody may', () => {
  for (const DEBEMAIL of ['ana@upserv.net', 'Ana <ana@upserv.net>'])
    assert.ok(isReachable(maintainer({ DEBEMAIL })), DEBEMAIL)
  for (const DEBEMAIL of ['', 'ana', 'ana@localhost', 'a@b.invalid', 'Ana <a@host.test>', '<>'])
    assert.ok(!isReachable(maintainer({ DEBEMAIL })), DEBEMAIL)
})

const CHANGELOG = `# Changelog

## Unreleased

### Added

- One thing that is so long
  that it takes two lines.

## 1.0.0 (2026-01-01)

### Fixed

- Another.
`

test('the changelog, as others want it', () => {
  assert.equal(notesOf(CHANGELOG, '1.0.0'), '### Fixed\n\n- Another.')
  assert.match(notesOf(CHANGELOG, '2.0.0'), /One thing/)
  const released = withRelease(CHANGELOG, '2.0.0', '2026-02-02')
  assert.match(released, /## Unreleased\n\n## 2\.0\.0 \(2026-02-02\)\n\n### Added/)
  assert.throws(() => withRelease(released, '2.0.1', '2026-02-03'), /Nothing is under "Unreleased"/)
  assert.equal(
    debianChangelog(CHANGELOG, '1.0.0-rc.1', new Date(0), maintainer({})).split('\n').at(-2),
    ' -- The upserv authors <upserv@packages.invalid>  Thu, 01 Jan 1970 00:00:00 +0000',
  )
  assert.match(
    debianChangelog(CHANGELOG, '1.0.0-rc.1', new Date(0), maintainer({})),
    /^upserv \(1\.0\.0~rc\.1\) /,
  )
})
