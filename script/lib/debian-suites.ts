/** Where this machine's apt gets its Debian from: what mmdebstrap is told to build systems of. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { run } from '../../test/support/processes.ts'

export interface Suite {
  name: string
  uri: string
}

/** The release's own suite first, then its updates, as apt on this machine is configured. */
export async function debianSuites(): Promise<Suite[]> {
  const release = /^VERSION_CODENAME=(\S+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  assert.ok(release, 'this is no Debian: /etc/os-release has no VERSION_CODENAME')
  const format = ['--format', '$(RELEASE) $(REPO_URI)', 'Created-By: Packages']
  const { stdout } = await run('apt-get', ['indextargets', ...format])
  const found = new Map<string, string>()
  for (const line of stdout.split('\n')) {
    const [name, uri] = line.split(' ')
    if (name && uri && (name === release || name.startsWith(`${release}-`))) found.set(name, uri)
  }
  const own = found.get(release)
  assert.ok(own, `apt on this machine has no source for ${release}`)
  const others = [...found].filter(([name]) => name !== release)
  return [{ name: release, uri: own }, ...others.map(([name, uri]) => ({ name, uri }))]
}
