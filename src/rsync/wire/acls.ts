/**
 * POSIX ACLs in the file list. docs/rsync-protocol.md, section 7.1.
 *
 * A build keeps them as Linux does, in the attributes system.posix_acl_access and _default: a version
 * (u32, 2) and then entries of tag (u16), permissions (u16) and id (u32), little-endian; acl(5) names the
 * tags.
 */
import type { ByteWriter } from '../../lib/byte-writer.ts'
import { ascii } from '../../lib/bytes.ts'
import type { Xattr } from '../tree.ts'
import { encodeVarint } from './ints.ts'

const ACCESS = ascii('system.posix_acl_access')
const DEFAULT = ascii('system.posix_acl_default')
const VERSION = 2
const TAG = { userObject: 0x01, user: 0x02, groupObject: 0x04, group: 0x08, mask: 0x10, other: 0x20 } as const
const FLAG = { userObject: 0x01, groupObject: 0x02, mask: 0x04, other: 0x08, named: 0x10 } as const
/** In a named entry: set for users, clear for groups. */
const IS_USER = 2

interface NamedEntry {
  isUser: boolean
  id: number
  permissions: number
}

/** Permissions are 0 to 7; undefined for what the ACL does not have. */
interface Acl {
  userObject?: number | undefined
  groupObject?: number | undefined
  mask?: number | undefined
  other?: number | undefined
  named: NamedEntry[]
}

/** Writes ACLs, each new one in full and a repeated one by its number. One for each session. */
export class AclEncoder {
  readonly #known = { access: new Map<string, number>(), default: new Map<string, number>() }
  /** Owners that named entries speak of: they belong into the id lists. */
  readonly users = new Set<number>()
  readonly groups = new Set<number>()

  /** Of any entry but a symlink. */
  encode(out: ByteWriter, mode: number, isDirectory: boolean, xattrs: readonly Xattr[]): void {
    this.#put(out, this.#known.access, reduce(find(xattrs, ACCESS), mode))
    if (isDirectory) this.#put(out, this.#known.default, find(xattrs, DEFAULT) ?? NOTHING)
  }

  #put(out: ByteWriter, known: Map<string, number>, acl: Acl): void {
    const key = acl === NOTHING ? '' : JSON.stringify(acl)
    const number = known.get(key)
    if (number !== undefined) {
      encodeVarint(out, number)
      return
    }
    known.set(key, known.size + 1)
    encodeVarint(out, 0)
    const parts = [
      [FLAG.userObject, acl.userObject],
      [FLAG.groupObject, acl.groupObject],
      [FLAG.mask, acl.mask],
      [FLAG.other, acl.other],
    ] as const
    let flags = acl.named.length > 0 ? FLAG.named : 0
    for (const [flag, permissions] of parts) if (permissions !== undefined) flags |= flag
    out.u8(flags)
    for (const [, permissions] of parts) if (permissions !== undefined) encodeVarint(out, permissions)
    if (acl.named.length === 0) return
    encodeVarint(out, acl.named.length)
    for (const { isUser, id, permissions } of acl.named) {
      ;(isUser ? this.users : this.groups).add(id)
      encodeVarint(out, id)
      encodeVarint(out, (permissions << 2) | (isUser ? IS_USER : 0))
    }
  }
}

const NOTHING: Acl = { named: [] }

/** An access ACL says only what the mode does not say already. */
function reduce(acl: Acl | undefined, mode: number): Acl {
  // Without a mask there are no named entries: the mode says it all.
  if (!acl || acl.mask === undefined) return NOTHING
  const groupBits = (mode >> 3) & 7
  return {
    groupObject: acl.groupObject === groupBits ? undefined : acl.groupObject,
    mask: acl.named.length > 0 && acl.mask === groupBits ? undefined : acl.mask,
    named: acl.named,
  }
}

function find(xattrs: readonly Xattr[], name: string): Acl | undefined {
  const value = xattrs.find((xattr) => xattr.name === name)?.value
  return value && decodeAcl(value)
}

/** undefined for what is no ACL of the version that we know: the mode is then all that is told. */
function decodeAcl(value: Uint8Array): Acl | undefined {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  if (value.length < 4 || value.length % 8 !== 4 || view.getUint32(0, true) !== VERSION) return undefined
  const acl: Acl = { named: [] }
  for (let at = 4; at < value.length; at += 8) {
    const permissions = view.getUint16(at + 2, true) & 7
    const id = view.getUint32(at + 4, true)
    switch (view.getUint16(at, true)) {
      case TAG.userObject:
        acl.userObject = permissions
        break
      case TAG.groupObject:
        acl.groupObject = permissions
        break
      case TAG.mask:
        acl.mask = permissions
        break
      case TAG.other:
        acl.other = permissions
        break
      case TAG.user:
      case TAG.group:
        acl.named.push({ isUser: view.getUint16(at, true) === TAG.user, id, permissions })
        break
      default:
        return undefined
    }
  }
  acl.named.sort((a, b) => Number(b.isUser) - Number(a.isUser) || a.id - b.id)
  return acl
}
