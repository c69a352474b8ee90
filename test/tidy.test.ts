/**
 * What keeps the tree in order: imports go one way, every file is reached, and what people can meet
 * (error codes, labels of protocol errors, configuration keys, states of a session) is in the docs.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { configKeys } from '../src/config/config.ts'
import { CODES } from '../src/errors.ts'
import { NEXT } from '../src/rsync/session.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/**
 * What each folder of src/ may import beside itself. Everyone may use errors.ts, version.ts and lib/. The
 * leaves (access, archive, cache, doorstep, history, rsync, source, store) don't know each other.
 */
const MAY_IMPORT: Record<string, readonly string[]> = {
  lib: [],
  access: [],
  doorstep: [],
  cache: [],
  history: [],
  rsync: [],
  store: [],
  source: [],
  archive: [],
  config: ['access', 'doorstep', 'source', 'rsync', 'build'],
  build: ['rsync', 'store', 'source', 'archive', 'history'],
  daemon: ['build', 'doorstep', 'rsync', 'config', 'history'],
  http: ['build', 'doorstep', 'config', 'rsync', 'history', 'source'],
  'server.ts': [
    'access',
    'cache',
    'build',
    'rsync',
    'store',
    'config',
    'daemon',
    'doorstep',
    'http',
    'history',
  ],
  cli: ['server.ts', 'build', 'doorstep', 'daemon', 'config', 'store', 'history', 'access', 'http', 'source'],
  'errors.ts': [],
  'version.ts': [],
}
const FOR_ALL = ['lib', 'errors.ts', 'version.ts']

const sources = globSync('{src,bin}/**/*.ts', { cwd: ROOT })
const modules = sources.filter((path) => !/\.(test|d)\.ts$/.test(path))

/** Files that one file names in imports, `import()` types and siblingModule calls. */
function importsOf(path: string): string[] {
  const text = read(path)
  const found: string[] = []
  for (const [, specifier] of text.matchAll(/(?:from|import)\s*\(?\s*'(\.[^']*)'/g)) found.push(specifier!)
  for (const [, specifier] of text.matchAll(/siblingModule\(import\.meta\.url, '(\.[^']*)'\)/g))
    found.push(`${specifier}.ts`)
  return found.map((specifier) => relative(ROOT, join(ROOT, dirname(path), specifier)))
}

/** The part of src/ that a file belongs to. */
function partOf(path: string): string {
  return path.startsWith('bin/') ? 'bin' : path.split('/')[1]!
}

test('imports go one way', () => {
  for (const path of modules) {
    const part = partOf(path)
    if (part === 'bin') continue
    const allowed = MAY_IMPORT[part]
    assert.ok(allowed, `${path}: nobody has said what src/${part} may import`)
    for (const imported of importsOf(path)) {
      const target = partOf(imported)
      assert.ok(
        target === part || allowed.includes(target) || FOR_ALL.includes(target),
        `${path} imports ${imported}, but src/${part} may not import from src/${target}`,
      )
    }
  }
})

test('docs/architecture.md has every part, and what each may import', () => {
  const page = read('docs/architecture.md')
  const quoted = (names: readonly string[]): string => names.map((name) => `\`${name}\``).join(', ')
  for (const [part, allowed] of Object.entries(MAY_IMPORT)) {
    if (part !== 'version.ts')
      assert.match(page, new RegExp(`^\\| \`${part}/?\` \\|`, 'm'), `${part} is not among the parts`)
    if (allowed.length > 0) assert.ok(page.includes(`\n| \`${part}\` | ${quoted(allowed)} |\n`), part)
  }
  const leaves = Object.keys(MAY_IMPORT).filter(
    (part) => MAY_IMPORT[part]!.length === 0 && !FOR_ALL.includes(part),
  )
  assert.ok(page.includes(`The leaves ${quoted(leaves.sort())} `), `${leaves}`)
})

test('codecs of the wire are pure: they import no IO', () => {
  for (const path of modules.filter((path) => path.startsWith('src/rsync/wire/'))) {
    assert.doesNotMatch(
      read(path),
      /from 'node:(?:fs|net|stream|http|timers|child_process|worker_threads)/,
      path,
    )
  }
})

test('whatever writes into the data directory does it through lib/disk.ts', () => {
  /** Look at files that are not in the data directory: an archive to import. */
  const elsewhere = ['src/build/fetch.ts']
  const writers = modules.filter((path) => /^src\/(?:store|build)\/|^src\/source\/spool\.ts$/.test(path))
  assert.ok(writers.length > 20)
  for (const path of writers.filter((path) => !elsewhere.includes(path)))
    assert.doesNotMatch(read(path), /from 'node:fs/, path)
})

test('what commands print as JSON drives no terminal: it is made in one place', () => {
  for (const path of modules.filter((path) => path.startsWith('src/cli/')))
    assert.doesNotMatch(read(path), /JSON\.stringify/, `${path}: showJson of lib/bytes.ts`)
})

test('no shell, ever; and programs that outside bytes reach are started by lib/confined.ts alone', () => {
  /** Who starts what, as it is written there: words of our own, or of the operator's own command line. */
  const starters: Record<string, readonly string[]> = {
    'src/lib/confined.ts': ['file!'],
    'src/lib/flock.ts': ["'flock'"],
    'src/daemon/systemd.ts': ["'systemd-notify'"],
    'src/daemon/handover.ts': ["'setsid'"], // upserv itself
    'src/lib/journal.ts': ["'perl'"], // a program of ours; entries reach it by stdin, without control characters
    'src/cli/bring.ts': ["'tar'", 'program'], // and mkdir and mkfifo, for the operator who types a command
    'src/cli/inetd.ts': ["'flock'"], // upserv itself
  }
  for (const path of modules) {
    const text = read(path)
    if (!starters[path]) assert.doesNotMatch(text, /^import (?!type ).*child_process/m, path)
    const started = text.matchAll(/\b(?:spawn|spawnSync|execFile|execFileSync|fork)\(\s*([^\s,)]+)/g)
    assert.deepEqual([...new Set([...started].map(([, program]) => program!))], starters[path] ?? [], path)
    assert.doesNotMatch(
      text,
      /\bshell: (?:true|[^a-z ])|(?<!\.)\bexec(?:Sync)?\(|\beval\(|new Function\(|\/bin\/(?:ba|da|z)?sh\b/,
      path,
    )
    assert.doesNotMatch(text, /import \{[^}]*\bexec(?:Sync)?\b[^}]*\} from 'node:child_process'/, path)
  }
})

test('no imports go round in a circle', () => {
  const graph = new Map(modules.map((path) => [path, importsOf(path)]))
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    assert.ok(!trail.includes(path), `a circle: ${[...trail.slice(trail.indexOf(path)), path].join(' -> ')}`)
    if (done.has(path)) return
    // Types alone make no circle at run time, but they still tie two files together: none are let through.
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const path of modules) visit(path, [])
})

test('every file is reached from the executable', () => {
  const reached = new Set<string>()
  const visit = (path: string): void => {
    if (reached.has(path)) return
    reached.add(path)
    for (const next of importsOf(path)) visit(next)
  }
  visit('bin/upserv.ts')
  assert.deepEqual(
    modules.filter((path) => !reached.has(path)),
    [],
  )
})

test('every error code is in docs/operations.md', () => {
  const operations = read('docs/operations.md')
  const codes = [...read('src/errors.ts').matchAll(/readonly code(?:: string)? = '([A-Z_]+)'/g)].map(
    ([, code]) => code!,
  )
  assert.ok(codes.length > 10)
  assert.deepEqual(Object.values(CODES).flat().sort(), [...codes, 'INTERNAL'].sort())
  for (const code of codes) assert.match(operations, new RegExp(`\`${code}\``), `${code} is not explained`)
})

test('every label that a protocol error begins with is in docs/rsync-protocol.md', () => {
  const [, table = ''] = read('docs/rsync-protocol.md').split('\n## 15. Labels\n')
  const labels = modules
    .filter((path) => path.startsWith('src/rsync/'))
    .flatMap((path) => [...read(path).matchAll(/PeerError\(\s*'([a-z0-9-]+)'/g)])
    .map(([, label]) => label!)
  assert.ok(labels.length > 20)
  for (const label of new Set(labels)) assert.ok(table.includes(`\`${label}\``), `${label} is not listed`)
})

test('every configuration key is in docs/configuration.md', () => {
  const page = read('docs/configuration.md')
  for (const key of configKeys()) assert.ok(page.includes(`\`${key}\``), `${key} is not described`)
})

test('every metric is in docs/operations.md', () => {
  const page = read('docs/operations.md')
  const text = read('src/http/metrics.ts')
  const metrics = [
    ...[...text.matchAll(/\b(?:counter|gauge)\(\s*'(\w+)'/g)].map(([, name]) => `upserv_${name}`),
    ...[...text.matchAll(/\bname: '(upserv_\w+)'/g)].map(([, name]) => name!),
  ]
  assert.ok(metrics.length > 15, `${metrics.length}`)
  for (const name of metrics) assert.match(page, new RegExp(`\`${name}[\`{]`), `${name} is not described`)
})

test('the state diagram in docs/architecture.md is that of the code', () => {
  const lines = Object.entries(NEXT).flatMap(([state, steps]) =>
    Object.entries(steps)
      .filter(([step]) => step !== 'refuse')
      .map(([step, next]) => `    ${state} --> ${next} : ${step}`),
  )
  const diagram = `stateDiagram-v2\n    [*] --> greeting\n${lines.join('\n')}\n`
  assert.ok(read('docs/architecture.md').includes(diagram), `docs/architecture.md must hold:\n${diagram}`)
})
