/** The npm packages that run, as package-lock.json has them and node_modules brings them, and their licences. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

const ROOT = resolve(import.meta.dirname, '../..')

export interface NpmPackage {
  readonly name: string
  readonly version: string
  /** Below the root of the checkout. */
  readonly path: string
  /** Of the tarball, as npm checks it. */
  readonly integrity: string
}

/** Without those for development alone, and without binaries that are optional. */
export function runtimePackages(): NpmPackage[] {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { version: string; integrity: string; dev?: boolean; optional?: boolean }>
  }
  return Object.entries(packages)
    .filter(([path, { dev, optional }]) => path !== '' && !dev && !optional)
    .map(([path, { version, integrity }]) => ({
      name: path.replace(/^.*node_modules\//, ''),
      version,
      path,
      integrity,
    }))
}

/** Its licence by name, and the text that it brings. */
export function licenceOf({ path }: NpmPackage): { id: string; text: string | undefined } {
  const directory = join(ROOT, path)
  const file = readdirSync(directory).find((entry) => /^LICEN[CS]E/i.test(entry))
  const { license } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as { license: string }
  return { id: license, text: file === undefined ? undefined : readFileSync(join(directory, file), 'utf8') }
}

/** Whom the text of a licence names; the template of one that nobody has filled in does not count. */
export function holderIn(text: string): string | undefined {
  return text
    .match(/^\s*Copyright.*$/gim)
    ?.find((line) => !line.includes('[yyyy]'))
    ?.trim()
}

/** What THIRD-PARTY.md says. `node script/lib/runtime-packages.ts` writes it. */
export function thirdParty(): string {
  const rows = runtimePackages()
    .map((each) => {
      const { id, text } = licenceOf(each)
      const holder = (text === undefined ? undefined : holderIn(text)) ?? ''
      return `| ${each.name} | ${each.version} | ${id} | ${holder.replaceAll('|', '/').replaceAll(/[<>]/g, '')} |`
    })
    .sort()
  return `# Third parties

What runs beside our own code, from package-lock.json; \`node script/lib/runtime-packages.ts\` writes this page. The
Debian package has the full texts in \`/usr/share/doc/upserv/copyright\`, and Node.js with the licences of all that is in
it in \`LICENSE.node\`; an npm installation has them in each package. Why each of them is here is in
[docs/adr/0009-dependencies.md](docs/adr/0009-dependencies.md).

| package | version | licence | copyright |
|---|---|---|---|
${rows.join('\n')}
`
}

if (import.meta.main) {
  const { writeFileSync } = await import('node:fs')
  writeFileSync(join(ROOT, 'THIRD-PARTY.md'), thirdParty())
}
