/** Extended attributes and ACLs of a tree on disk, as text that is equal when they are. */
import { execFileSync } from 'node:child_process'

/** Every attribute beneath `dir`, without ACLs, as the system's own tool prints them. */
export function attributesOf(dir: string): string {
  const options = { cwd: dir, encoding: 'utf8' } as const
  // getfattr lists the files in the order in which the directory has them, and so the names of a file.
  return blocks(
    execFileSync('getfattr', ['-Rhd', '-m', '^(user|security|trusted)', '-e', 'hex', '.'], options),
  )
}

/** Every ACL beneath `dir`, those that are no more than a mode included. */
export function aclsOf(dir: string): string {
  return blocks(execFileSync('getfacl', ['-RPnp', '.'], { cwd: dir, encoding: 'utf8' }))
}

/** Paragraphs and their lines, sorted. */
function blocks(text: string): string {
  const paragraphs = text.split('\n\n').map((block) => block.split('\n').sort().join('\n'))
  return paragraphs.sort().join('\n\n')
}
