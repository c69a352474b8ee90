/**
 * Every form in which a client can ask for something: module, directory, file, several, wildcards, -R,
 * -d, links followed or not, lists of names. Each row says which paths must arrive.
 */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { PROTOCOLS, rsync } from '../support/rsync.ts'
import { SERVER_KIND, startServer, type TestServer } from '../support/servers.ts'
import { inside, SMALL_TREE_PATHS, smallTree, withParent } from '../support/small-tree.ts'
import { pathsOf, snapshot } from '../support/snapshot.ts'

interface Request {
  /** What follows `rsync://HOST/build-1`, one for each source argument. */
  sources: readonly string[]
  /** '-r' and '-l' unless given. */
  options?: readonly string[]
  /** Standard input, for --files-from=-. */
  input?: string
  /** What must be in the destination afterwards. */
  paths: readonly string[]
  code?: number
  /** What stdout or stderr must say. */
  says?: RegExp
  /** The first protocol at which the client itself allows this. */
  since?: number
  /** What keeps the stock daemon from doing this. */
  stockFails?: string
  /** Why, where it is not obvious. */
  name?: string
}

const below = (prefix: string, paths: readonly string[]): string[] => paths.map((path) => `${prefix}/${path}`)
/** "file has vanished" for each file of the list. */
const STOCK_FILES_FROM = 'rsyncd 3.5.0 without chroot opens such names relative to the module'
const WHOLE_MODULE = ['contents', 'root', ...below('root', SMALL_TREE_PATHS)]

// biome-ignore format: a table
const REQUESTS: readonly Request[] = [
  // Module, directory, file; with and without a slash at the end.
  { sources: [''], paths: WHOLE_MODULE },
  { sources: ['/'], paths: WHOLE_MODULE },
  { sources: ['/.'], paths: WHOLE_MODULE },
  { sources: ['/contents'], paths: ['contents'] },
  { sources: ['/root'], paths: ['root', ...below('root', SMALL_TREE_PATHS)] },
  { sources: ['/root/'], paths: SMALL_TREE_PATHS },
  { sources: ['/root/.'], paths: SMALL_TREE_PATHS },
  { sources: ['/root/dir'], paths: withParent('dir') },
  { sources: ['/root/dir/'], paths: inside('dir') },
  { sources: ['/root/dir/one'], paths: ['one'] },
  { sources: ['/root/dir/sub/deep/bottom'], paths: ['bottom'] },
  { sources: ['/root/empty'], paths: ['empty'] },
  { sources: ['/root/empty/'], paths: [] },
  { sources: ['/root/link'], paths: ['link'] },
  { sources: ['/root/link-to-dir'], paths: ['link-to-dir'] },
  { sources: ['/root/link-to-dir/'], paths: ['one'], name: 'a slash follows the link' },
  { sources: ['/root/-dash'], paths: ['-dash'] },
  { sources: ['/root/.hidden'], paths: ['.hidden'] },
  { sources: ['/root/sp ace'], paths: withParent('sp ace') },
  { sources: ['/root/sp ace/in side'], paths: ['in side'] },

  // Paths that are not in their shortest form never leave the module.
  { sources: ['//root///dir2//'], paths: ['one'] },
  { sources: ['/root/./dir/../dir2/'], paths: ['one'] },
  { sources: ['/../../root/dir2/'], paths: ['one'] },
  { sources: ['/root/../../../root/dir2/one'], paths: ['one'] },
  { sources: ['/../etc/passwd'], paths: [], code: 23 },

  // Several at once.
  { sources: ['/root/a.txt', '/root/dir/sub'], paths: ['a.txt', ...withParent('dir/sub')] },
  { sources: ['/root/dir/', '/root/dir2'], paths: [...inside('dir'), ...withParent('dir2')] },
  { sources: ['/root/dir/sub/', '/root/dir2/'], paths: [...inside('dir/sub'), 'one'] },
  { sources: ['/root/a.txt', '/root/a.txt', '/root/b.txt'], paths: ['a.txt', 'b.txt'], name: 'one of them twice' },
  { sources: ['/root/a.txt', '/root/nothing', '/root/b.txt'], paths: ['a.txt', 'b.txt'], code: 23, says: /link_stat.*nothing/ },

  // Wildcards.
  { sources: ['/root/*.txt'], paths: ['a.txt', 'ab.txt', 'b.txt'] },
  { sources: ['/root/?.txt'], paths: ['a.txt', 'b.txt'] },
  { sources: ['/root/[ab].txt'], paths: ['a.txt', 'b.txt'] },
  { sources: ['/root/[!a].txt'], paths: ['b.txt'] },
  { sources: ['/root/[a-b]?.txt'], paths: ['ab.txt'] },
  { sources: ['/root/d*/one'], options: ['-R'], paths: ['root', 'root/dir', 'root/dir/one', 'root/dir2', 'root/dir2/one'] },
  { sources: ['/*/dir/s*/*/b*'], paths: ['bottom'] },
  { sources: ['/root/*'], paths: SMALL_TREE_PATHS, name: '* matches leading dots too' },
  { sources: ['/root/.h*'], paths: ['.hidden'] },
  { sources: ['/root/star*'], paths: ['star*'] },
  { sources: ['/root/star\\*'], paths: ['star*'] },
  { sources: ['/root/br[a]ck'], paths: ['br[a]ck'], name: 'no match, so the name itself' },
  { sources: ['/root/br\\[a\\]ck'], paths: ['br[a]ck'] },
  { sources: ['/root/no*match'], paths: [], code: 23, says: /No such file or directory/ },
  { sources: ['/root/sp*/in*'], paths: ['in side'] },

  // Relative names.
  { sources: ['/root/dir/sub'], options: ['-rR'], paths: ['root', 'root/dir', ...below('root/dir', withParent('dir/sub'))] },
  { sources: ['/root/dir/sub/'], options: ['-rR'], paths: ['root', 'root/dir', ...below('root/dir', withParent('dir/sub'))] },
  { sources: ['/root/./dir/sub'], options: ['-rR'], paths: ['dir', ...below('dir', withParent('dir/sub'))] },
  { sources: ['/root/./dir/one', '/root/./dir2/one'], options: ['-R'], paths: ['dir', 'dir/one', 'dir2', 'dir2/one'] },
  { sources: ['/root/./dir/one'], options: ['-R', '--no-implied-dirs'], paths: ['dir', 'dir/one'], since: 30 },
  { sources: ['/root/dir/./'], options: ['-rlR'], paths: inside('dir') },

  // Not recursive.
  { sources: ['/root/'], options: ['-dl'], paths: SMALL_TREE_PATHS.filter((path) => !path.includes('/')) },
  { sources: ['/root/dir'], options: ['-d'], paths: ['dir'] },
  { sources: ['/root/dir/'], options: ['-d'], paths: ['.rsync-filter', 'one', 'sub', 'two'] },
  { sources: ['/root/dir'], options: ['-t'], paths: [], says: /skipping directory dir/ },
  { sources: ['/root/a.txt', '/root/dir'], options: ['-t'], paths: ['a.txt'], says: /skipping directory dir/ },
  { sources: ['/root/a.txt', '/root/link'], options: ['-l'], paths: ['a.txt', 'link'] },

  // Links.
  { sources: ['/root/link', '/root/a.txt'], options: ['-r'], paths: ['a.txt'], says: /skipping non-regular file "link"/ },
  { sources: ['/root/link', '/root/link-to-dir'], options: ['-rL'], paths: ['link', 'link-to-dir', 'link-to-dir/one'] },
  { sources: ['/root/'], options: ['-rlk'], paths: [...SMALL_TREE_PATHS, 'link-to-dir/one'].sort() },
  { sources: ['/root/'], options: ['-rL'], paths: [...SMALL_TREE_PATHS, 'link-to-dir/one'].sort() },
  { sources: ['/root/'], options: ['-rl', '--safe-links'], paths: SMALL_TREE_PATHS },
  { sources: ['/root/'], options: ['-rl', '--copy-unsafe-links'], paths: SMALL_TREE_PATHS },
  { sources: ['/root/'], options: ['-rlx'], paths: SMALL_TREE_PATHS },

  // Lists of names, beneath the module and beneath a directory.
  { sources: ['/'], options: ['--files-from=-', '-l'], input: 'contents\nroot/link\nroot/sp ace/in side\n', paths: ['contents', 'root', 'root/link', 'root/sp ace', 'root/sp ace/in side'] },
  { sources: ['/'], options: ['--files-from=-', '-r'], input: 'root/dir/sub\n', paths: ['root', 'root/dir', ...below('root/dir', withParent('dir/sub'))] },
  { sources: ['/'], options: ['--files-from=-', '-t'], input: 'root/dir/sub\nroot/dir2/\n', paths: ['root', 'root/dir', 'root/dir/sub', 'root/dir2', 'root/dir2/one'], name: 'directories without what is in them, unless a slash asks' },
  { sources: ['/'], options: ['--files-from=-', '--from0'], input: 'root/a.txt\0root/dir/one\0', paths: ['root', 'root/a.txt', 'root/dir', 'root/dir/one'] },
  { sources: ['/'], options: ['--files-from=-', '--no-relative'], input: 'root/a.txt\nroot/dir/one\n', paths: ['a.txt', 'one'] },
  { sources: ['/'], options: ['--files-from=-'], input: 'root/a.txt\nnothing\nroot/b.txt\n', paths: ['root', 'root/a.txt', 'root/b.txt'], code: 23, says: /link_stat.*nothing/ },
  { sources: ['/'], options: ['--files-from=-'], input: 'root/*.txt\nroot/star*\n', paths: ['root', 'root/star*'], code: 23, name: 'names in a list are not wildcards' },
  { sources: ['/'], options: ['--files-from=-', '--ignore-missing-args'], input: 'contents\nnothing\n', paths: ['contents'] },
  { sources: ['/'], options: ['--files-from=-'], input: '../../etc/passwd\n/contents\n', paths: ['contents'], code: 23 },
  { sources: ['/root/'], options: ['--files-from=-', '-l'], input: 'a.txt\nsp ace/in side\n', paths: ['a.txt', 'sp ace', 'sp ace/in side'], stockFails: STOCK_FILES_FROM },
  { sources: ['/root/'], options: ['--files-from=-', '-r'], input: 'dir/sub\n', paths: ['dir', ...below('dir', withParent('dir/sub'))], stockFails: STOCK_FILES_FROM },

  // The rest.
  { sources: ['/root/nothing', '/root/a.txt'], options: ['--ignore-missing-args'], paths: ['a.txt'] },
  { sources: ['/root/nothing'], paths: [], code: 23, says: /link_stat ".*\/root\/nothing".* failed: No such file or directory \(2\)/ },
  { sources: ['/root/a.txt/'], paths: [], code: 23, name: 'a slash behind a file' },
  { sources: ['/root/a.txt/b'], paths: [], code: 23 },
  { sources: ['/root/'], options: ['-rl', '--no-inc-recursive'], paths: SMALL_TREE_PATHS },
  { sources: ['/root/sp ace/', '/root/*.txt'], options: ['-rl', '-s'], paths: ['a.txt', 'ab.txt', 'b.txt', 'in side'] },
  { sources: ['/root/sp ace/'], options: ['-rl', '--old-args'], paths: ['in side'] },
]

let server: TestServer
before(async () => {
  server = await startServer({ 1: smallTree() })
})
after(() => server?.stop())

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 4 }, () => {
    for (const request of REQUESTS) {
      const { sources, options = ['-rl'], since = 0, stockFails } = request
      const asked = sources.map((source) => `build-1${source}`).join(' ')
      const why = request.name ? ` (${request.name})` : ''
      const skip =
        protocol < since
          ? `the client refuses this below ${since}`
          : SERVER_KIND === 'rsyncd' && (stockFails ?? false)
      test(`protocol ${protocol}: ${options.join(' ')} ${asked}${why}`, { skip }, () => arrives(request))
    }

    test(`protocol ${protocol}: HOST::MODULE with several sources`, async () => {
      await arrives({ sources: [], options: ['-rl', `--port=${server.port}`], paths: ['a.txt', 'b.txt'] }, [
        '127.0.0.1::build-1/root/a.txt',
        '::build-1/root/b.txt',
      ])
    })

    test(`protocol ${protocol}: several sources in one word, as scripts wrote them for old clients`, async () => {
      await arrives(
        { sources: [], options: ['-rl', '--old-args', `--port=${server.port}`], paths: ['a.txt', 'b.txt'] },
        ['127.0.0.1::build-1/root/a.txt build-1/root/b.txt'],
      )
    })

    test(`protocol ${protocol}: a space in a name is no separator for current clients`, async () => {
      await arrives({ sources: [], options: ['-rl', `--port=${server.port}`], paths: [], code: 23 }, [
        '127.0.0.1::build-1/root/a.txt build-1/root/b.txt',
      ])
    })

    test(`protocol ${protocol}: --delete-missing-args takes away what the server does not have`, async () => {
      const device = server.place('missing-args')
      const args = ['-r', `${server.url}/build-1/root/dir2/`, device]
      assert.equal((await rsync(args, { protocol })).code, 0)
      const gone = ['-r', '--delete-missing-args', `${server.url}/build-1/root/one`, `${device}/`]
      const result = await rsync(gone, { protocol })
      assert.equal(result.code, 0, result.stderr)
      assert.deepEqual(pathsOf(snapshot(device)), [])
    })

    async function arrives(request: Request, written?: readonly string[]): Promise<void> {
      const { options = ['-rl'], input, code = 0, paths, says } = request
      const sources = written ?? request.sources.map((source) => `${server.url}/build-1${source}`)
      const device = server.place('request', 'make')
      const run = input === undefined ? { protocol } : { protocol, input }
      const result = await rsync([...options, ...sources, `${device}/`], run)
      const said = `${result.command}\n${result.stdout}${result.stderr}`
      assert.equal(result.code, code, said)
      assert.deepEqual(pathsOf(snapshot(device)), [...paths].sort(), said)
      if (says) assert.match(result.stdout + result.stderr, says)
    }
  })
}
