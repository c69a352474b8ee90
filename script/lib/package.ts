/**
 * `script/package`: lays out what is installed, and lets debhelper and npm pack it.
 *
 * Reproducible: nothing of the machine, the directory or the clock goes in. The only time is that of the
 * version: SOURCE_DATE_EPOCH, else the last commit's.
 */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { formatSize } from '../../src/lib/units.ts'
import { VERSION } from '../../src/version.ts'
import { debianChangelog } from './changelog.ts'
import { maintainer } from './maintainer.ts'
import { completions, manPages } from './manual.ts'
import { type Arch, checkArch, dependenciesOf, machineArch, runtimeFor } from './runtime.ts'
import { holderIn, licenceOf, type NpmPackage, runtimePackages } from './runtime-packages.ts'
import { shippedDocs, shippedExamples } from './shipped-docs.ts'

const ROOT = resolve(import.meta.dirname, '../..')
/** Files of npm packages that nothing runs. */
const NOT_RUN =
  /(?:\.[cm]?ts|\.map|\.sh|\.[ch]|\.md|\.markdown|\.tsbuildinfo|tsconfig.*\.json|\.umd\.min\.js|\.esm(?:\.min)?\.js)$|^(?:test|tests|test-jest|integration|bin|bench|benchmark|benchmarks|docs|examples?|scripts|\.github|src)$|^(?:bin|bench|test|eslint\.config)\.[cm]?js$|^favicon|^CNAME$|^index\.html$|^\./
/** What stands for the whole text of a licence that Debian brings. */
const APACHE_NOTICE = `On Debian systems the full text of the Apache License, Version 2.0, is in
/usr/share/common-licenses/Apache-2.0.`
/** zod's own folder of this name is what runs. */
const SRC_IS_SOURCE = new Set(['piscina'])

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: 'tmp/package' },
    version: { type: 'string', default: VERSION },
    fast: { type: 'boolean', default: false },
    arch: { type: 'string', default: machineArch() },
  },
})
const version = options.version
const epoch = Number(process.env.SOURCE_DATE_EPOCH ?? git('log', '-1', '--format=%ct'))
const out = resolve(options.out)
mkdirSync(out, { recursive: true })
if (positionals.includes('npm')) makeNpm()
if (positionals.includes('deb')) for (const arch of options.arch.split(',').map(checkArch)) makeDebs(arch)

function git(...args: string[]): string {
  return execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim()
}

function report(path: string): void {
  console.log(`${path}  ${formatSize(statSync(path).size)}`)
}

// ---------------------------------------------------------------------------------------------------
// npm

function makeNpm(): void {
  const stage = mkdtempSync(join(tmpdir(), 'upserv-npm-'))
  try {
    for (const name of ['dist', 'README.md', 'LICENSE'])
      cpSync(join(ROOT, name), join(stage, name), { recursive: true })
    // Without what only a checkout needs.
    const { scripts, devDependencies, allowScripts, ...manifest } = packageJson()
    writeFileSync(join(stage, 'package.json'), `${JSON.stringify({ ...manifest, version }, null, 2)}\n`)
    execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', out], { cwd: stage })
    report(join(out, `upserv-${version}.tgz`))
  } finally {
    rmSync(stage, { recursive: true })
  }
}

function packageJson(): Record<string, unknown> {
  return JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Record<string, unknown>
}

// ---------------------------------------------------------------------------------------------------
// Debian

function makeDebs(arch: Arch): void {
  // dpkg-buildpackage leaves its results beside the directory that it works in.
  const work = mkdtempSync(join(tmpdir(), 'upserv-deb-'))
  try {
    const stage = join(work, 'stage')
    layOut(stage, arch)
    const args = ['--build=binary', '--no-sign', '--no-check-builddeps', `--host-arch=${arch}`]
    execFileSync('dpkg-buildpackage', args, {
      cwd: stage,
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        SOURCE_DATE_EPOCH: String(epoch),
        UPSERV_DEB_COMPRESSION: options.fast ? '-Zgzip -z1' : '-Zxz -z6',
        UPSERV_DEPENDS: dependenciesOf(arch, stage),
        DH_QUIET: '1',
        TZ: 'UTC',
        LC_ALL: 'C.UTF-8',
      },
    })
    for (const name of readdirSync(work).filter((name) => name.endsWith('.deb'))) {
      cpSync(join(work, name), join(out, name))
      report(join(out, name))
    }
  } finally {
    rmSync(work, { recursive: true })
  }
}

/** What debian/*.install and its like name. */
function layOut(stage: string, arch: Arch): void {
  const write = (path: string, text: string, mode = 0o644): void => {
    mkdirSync(dirname(join(stage, path)), { recursive: true })
    writeFileSync(join(stage, path), text)
    chmodSync(join(stage, path), mode)
  }
  const copy = (from: string, to: string): void => write(to, readFileSync(join(ROOT, from), 'utf8'))

  cpSync(join(ROOT, 'packaging/debian'), join(stage, 'debian'), { recursive: true })
  const control = readFileSync(join(ROOT, 'packaging/debian/control'), 'utf8')
  write('debian/control', control.replace(/^Maintainer: .*$/m, `Maintainer: ${maintainer()}`))
  for (const unit of ['upserv.socket', 'upserv.service']) copy(`packaging/systemd/${unit}`, `debian/${unit}`)
  // As debhelper wants a unit that is not called after its package.
  copy('packaging/systemd/upserv-tls.socket', 'debian/upserv.upserv-tls.socket')
  const date = new Date(epoch * 1000)
  write(
    'debian/changelog',
    debianChangelog(readFileSync(join(ROOT, 'CHANGELOG.md'), 'utf8'), version, date, maintainer()),
  )

  for (const part of ['bin', 'src']) {
    cpSync(join(ROOT, 'dist', part), join(stage, 'app/dist', part), {
      recursive: true,
      filter: (path) => !path.endsWith('.d.ts'),
    })
  }
  // bin/upserv starts it, with the runtime that it brings.
  const main = 'app/dist/bin/upserv.js'
  write(main, readFileSync(join(stage, main), 'utf8').replace(/^#!.*\n/, ''))
  const { name, type, license } = packageJson()
  write('app/package.json', `${JSON.stringify({ name, version, type, license }, null, 2)}\n`)
  const packages = runtimePackages()
  for (const { path, name } of packages) copyPackage(join(ROOT, path), join(stage, 'app', path), name)
  const runtime = runtimeFor(arch)
  cpSync(runtime.program, join(stage, 'app/node'))
  chmodSync(join(stage, 'app/node'), 0o755)
  write('app/bin/upserv', readFileSync(join(ROOT, 'bin/upserv'), 'utf8'), 0o755)

  copy('examples/upserv.toml', 'etc/upserv.toml')
  copy('packaging/xinetd/upserv', 'etc/xinetd.d/upserv')
  write('bin/upserv-update', readFileSync(join(ROOT, 'packaging/update/upserv-update'), 'utf8'), 0o755)
  for (const [page, text] of manPages(date.toISOString().slice(0, 10), version)) write(`man/${page}`, text)
  for (const [path, text] of completions()) write(`completions/${path}`, text)
  for (const [name, text] of shippedDocs()) write(`doc/${name}`, text)
  for (const example of shippedExamples()) copy(`examples/${example}`, `examples/${example}`)
  write('debian/upserv.copyright', `${notice()}${packages.map(licenceParagraph).join('')}${runtimeNotice()}`)
  write('doc/LICENSE.node', readFileSync(runtime.licence, 'utf8'))
  write('debian/upserv-update.copyright', notice())
}

function copyPackage(from: string, to: string, name: string): void {
  cpSync(from, to, {
    recursive: true,
    filter: (path) => {
      const base = basename(path)
      if (path === from) return true
      if (base === 'src' && !SRC_IS_SOURCE.has(name)) return name !== 'zod'
      // CommonJS beside ES modules: we import the latter.
      return !NOT_RUN.test(base) && !/^LICEN[CS]E/i.test(base)
    },
  })
}

function notice(): string {
  return `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: upserv

Files: *
Copyright: 2026 The upserv authors
License: Apache-2.0
${indent(APACHE_NOTICE)}
`
}

/** A paragraph of debian/copyright, with the licence as the package brings it. */
function licenceParagraph(each: NpmPackage): string {
  const { name, version, path } = each
  const { id, text = 'As package.json says.' } = licenceOf(each)
  // A licence that is among Debian's own is named, and not repeated.
  const shown = id === 'Apache-2.0' ? APACHE_NOTICE : text
  const label = `${id}-${name.replaceAll(/[^a-z0-9.]+/gi, '-')}`
  return paragraph(`usr/lib/upserv/${path}/*`, holderIn(text) ?? `${name} ${version}`, label, shown)
}

/** The text itself is long, and holds those of everything that is built into the runtime. */
function runtimeNotice(): string {
  return `
Files: usr/lib/upserv/node
Copyright: Node.js contributors, and those of the libraries in it
License: MIT-and-others
 The licences of Node.js and of all that it contains are in
 /usr/share/doc/upserv/LICENSE.node.gz.
`
}

function paragraph(files: string, copyright: string, name: string, text: string): string {
  return `\nFiles: ${files}\nCopyright: ${copyright}\nLicense: ${name}\n${indent(text)}\n`
}

/** As the continuation of a field of debian/control. */
function indent(text: string): string {
  return text
    .trim()
    .split('\n')
    .map((line) => (line.trim() === '' ? ' .' : ` ${line.trimEnd()}`))
    .join('\n')
}

if (!existsSync(join(ROOT, 'dist'))) throw new Error('Run script/package, which compiles first.')
