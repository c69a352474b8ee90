import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromHex, toHex } from '../../../test/support/hex.ts'
import { ByteWriter } from '../../lib/byte-writer.ts'
import { ascii } from '../../lib/bytes.ts'
import type { Xattr } from '../tree.ts'
import { AclEncoder } from './acls.ts'

const TAG = { user: 1, 'user:': 2, group: 4, 'group:': 8, mask: 16, other: 32 } as const

/** As Linux keeps it: [tag, permissions, id]... */
function acl(kind: 'access' | 'default', ...entries: [keyof typeof TAG, number, number?][]): Xattr {
  const value = Buffer.alloc(4 + 8 * entries.length)
  value.writeUInt32LE(2)
  for (const [i, [tag, permissions, id = 0xffffffff]] of entries.entries()) {
    value.writeUInt16LE(TAG[tag], 4 + 8 * i)
    value.writeUInt16LE(permissions, 6 + 8 * i)
    value.writeUInt32LE(id, 8 + 8 * i)
  }
  return { name: ascii(`system.posix_acl_${kind}`), value }
}

const NAMED = acl(
  'access',
  ['user', 6],
  ['user:', 4, 1000],
  ['group', 4],
  ['group:', 7, 50],
  ['mask', 7],
  ['other', 4],
)

/** docs/rsync-protocol.md, section 7.1: one session, entry after entry. */
const STEPS: readonly { name: string; mode: number; xattrs: Xattr[]; hex: string }[] = [
  { name: 'a plain file says nothing, in full', mode: 0o100644, xattrs: [], hex: '00 00' },
  { name: 'the next one by its number', mode: 0o100600, xattrs: [], hex: '01' },
  { name: 'a directory has a default one, too', mode: 0o040755, xattrs: [], hex: '01 00 00' },
  { name: 'the next directory', mode: 0o040700, xattrs: [], hex: '01 01' },
  {
    name: 'one that only repeats the mode says nothing',
    mode: 0o100644,
    xattrs: [acl('access', ['user', 6], ['group', 4], ['other', 4])],
    hex: '01',
  },
  {
    name: 'named entries, users first; group and mask differ from the mode',
    mode: 0o100664,
    xattrs: [NAMED],
    hex: '00 16 04 07 02 83e8 12 32 1c',
  },
  { name: 'the same again', mode: 0o100664, xattrs: [NAMED], hex: '02' },
  {
    name: 'a mask as the mode has it is left out',
    mode: 0o100674,
    xattrs: [NAMED],
    hex: '00 12 04 02 83e8 12 32 1c',
  },
  {
    name: 'a default one is told in full',
    mode: 0o040755,
    xattrs: [acl('default', ['user', 7], ['group', 5], ['other', 0])],
    hex: '01 00 0b 07 05 00',
  },
  {
    name: 'what is no ACL is none',
    mode: 0o100644,
    xattrs: [{ name: ascii('system.posix_acl_access'), value: Buffer.from('x') }],
    hex: '01',
  },
]
test('ACLs of one session', () => {
  const encoder = new AclEncoder()
  for (const { name, mode, xattrs, hex } of STEPS) {
    const out = new ByteWriter()
    encoder.encode(out, mode, (mode & 0o170000) === 0o040000, xattrs)
    assert.equal(toHex(out.view()), toHex(fromHex(hex)), name)
  }
  assert.deepEqual([...encoder.users], [1000])
  assert.deepEqual([...encoder.groups], [50])
})
