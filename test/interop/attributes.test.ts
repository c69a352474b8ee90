/** What only some clients ask for: owners by name or number, extended attributes, ACLs, capabilities. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { aclsOf, attributesOf } from '../support/attributes.ts'
import { PROTOCOLS, rsyncSucceeds } from '../support/rsync.ts'
import { isRoot, skipUnlessRoot } from '../support/scratch.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { SpecWriter } from '../support/tree.ts'

const TOOLS = ['setfattr', 'getfattr', 'setfacl', 'getfacl']

let server: TestServer
let missing: string | undefined
before(async () => {
  const tree = new SpecWriter()
  tree.directory('')
  for (const name of ['plain', 'attributes', 'large', 'same-a', 'same-b', 'acl', 'capable']) {
    tree.file(name, Buffer.from(`${name}\n`), { mode: 0o755 })
  }
  tree.directory('directory')
  tree.symlink('link', 'attributes')
  tree.hardlink('linked', 'attributes')
  if (isRoot) {
    tree.file('named', Buffer.from('named\n'), { uid: 1, gid: 2 })
    tree.file('nameless', Buffer.from('nameless\n'), { uid: 54_321, gid: 54_322 })
  }
  missing = TOOLS.find((tool) => spawnSync(tool, ['--version']).error)
  server = await startServer({ 1: tree.spec }, undefined, {
    xattrs: true,
    decorate: (_id, root) => {
      if (missing) return
      const set = (name: string, value: string, file: string): void => {
        const { status, stderr } = spawnSync('setfattr', ['-h', '-n', name, '-v', value, join(root, file)])
        if (status !== 0) missing = `${name} on this file system: ${stderr}`.trim()
      }
      set('user.short', 'value', 'attributes')
      set('user.empty', '', 'attributes')
      set('user.binary', `0x${'00ff0a'.repeat(20)}`, 'attributes')
      set('user.large', 'x'.repeat(1_000), 'large') // more than rsync sends at once: it asks for it later
      set('user.same', 'in two files', 'same-a')
      set('user.same', 'in two files', 'same-b')
      set('user.directory', 'of a directory', 'directory')
      if (missing) return
      execFileSync('setfacl', ['-m', 'u:1:rwx,g:54322:r--,m::rwx', join(root, 'acl')])
      execFileSync('setfacl', ['-m', 'u:1:r-x', '-d', '-m', 'g:2:rwx', join(root, 'directory')])
      if (isRoot) {
        set('security.capability', '0x0100000200200000000000000000000000000000', 'capable')
        set('trusted.only-root', 'sees this', 'link')
      }
    },
  })
})
after(() => server?.stop())

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 3 }, () => {
    const tooOld = protocol < 30 ? 'attributes and ACLs came with 30' : false
    const root = (): string => `${server.url}/build-1/root/`

    for (const [option, read] of [
      ['-X', attributesOf],
      ['-A', aclsOf],
    ] as const) {
      test(`protocol ${protocol}: ${option}, then a poll that finds nothing`, {
        skip: tooOld,
      }, async (context) => {
        if (missing) return context.skip(`needs ${missing}`)
        const device = server.place('attributes')
        await rsyncSucceeds(['-aH', option, root(), device], { protocol })
        assert.equal(read(device), read(server.treeOf('1')))
        assert.equal((await rsyncSucceeds(['-aHi', option, root(), device], { protocol })).stdout, '')
      })

      test(`protocol ${protocol}: ${option} repairs what is different`, { skip: tooOld }, async (context) => {
        if (missing) return context.skip(`needs ${missing}`)
        const device = server.place('repaired')
        await rsyncSucceeds(['-aH', option, root(), device], { protocol })
        execFileSync('setfattr', ['-n', 'user.large', '-v', 'y'.repeat(1_000), join(device, 'large')])
        execFileSync('setfattr', ['-n', 'user.short', '-v', 'other', join(device, 'attributes')])
        execFileSync('setfattr', ['-n', 'user.extra', '-v', '1', join(device, 'plain')])
        execFileSync('setfacl', ['-b', join(device, 'acl')])
        execFileSync('setfacl', ['-m', 'u:3:r', join(device, 'plain')])
        await rsyncSucceeds(['-aH', option, root(), device], { protocol })
        assert.equal(read(device), read(server.treeOf('1')))
      })
    }

    test(`protocol ${protocol}: -X without root keeps what a user may set`, {
      skip: tooOld,
    }, async (context) => {
      if (missing) return context.skip(`needs ${missing}`)
      const device = server.place('fake-super')
      await rsyncSucceeds(['-rlptX', '--fake-super', root(), device], { protocol })
      const value = execFileSync('getfattr', [
        '--only-values',
        '-n',
        'user.short',
        join(device, 'attributes'),
      ])
      assert.equal(value.toString(), 'value')
    })

    test(`protocol ${protocol}: owners by name`, { skip: skipUnlessRoot }, async () => {
      // A name that both sides know by the same number proves nothing: the client maps it to another one.
      const device = server.place('by-name')
      const map = ['--usermap=daemon:4242,*:4243', '--groupmap=bin:4244,*:4245']
      await rsyncSucceeds(['-a', ...map, root(), device], { protocol })
      assert.deepEqual(ownersOf(device), { named: '4242:4244', nameless: '4243:4245' })
    })

    test(`protocol ${protocol}: --numeric-ids sends no names`, { skip: skipUnlessRoot }, async () => {
      const device = server.place('by-number')
      await rsyncSucceeds(['-a', '--numeric-ids', root(), device], { protocol })
      assert.deepEqual(ownersOf(device), { named: '1:2', nameless: '54321:54322' })
    })

    test(`protocol ${protocol}: without -o and -g files are the client's`, {
      skip: skipUnlessRoot,
    }, async () => {
      const device = server.place('mine')
      await rsyncSucceeds(['-rlptD', root(), device], { protocol })
      assert.deepEqual(ownersOf(device), { named: '0:0', nameless: '0:0' })
    })

    test(`protocol ${protocol}: modes of the client's own choosing`, async () => {
      const device = server.place('chmod')
      mkdirSync(device)
      writeFileSync(join(device, 'plain'), 'plain\n', { mode: 0o600 })
      await rsyncSucceeds(['-rt', '--chmod=F640,D750', '-p', root(), device], { protocol })
      assert.equal(execFileSync('stat', ['-c', '%a', join(device, 'plain')]).toString(), '640\n')
      assert.equal(execFileSync('stat', ['-c', '%a', join(device, 'directory')]).toString(), '750\n')
    })
  })
}

function ownersOf(dir: string): Record<'named' | 'nameless', string> {
  const owner = (name: string): string =>
    execFileSync('stat', ['-c', '%u:%g', join(dir, name)])
      .toString()
      .trim()
  return { named: owner('named'), nameless: owner('nameless') }
}
