/** Filter rules: the server leaves out what the client's rules say, and the client checks that it did. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { PROTOCOLS, rsyncSucceeds } from '../support/rsync.ts'
import { startServer, type TestServer } from '../support/servers.ts'
import { SMALL_TREE_PATHS, smallTree } from '../support/small-tree.ts'
import { pathsOf, snapshot } from '../support/snapshot.ts'

interface FilterCase {
  options: readonly string[]
  /** Which paths of the small tree are left out. */
  without: RegExp
  /** The oldest protocol at which the client accepts such rules. */
  since?: number
  /** Lines of a rules file, which `RULES` in the options stands for. */
  rules?: string
}

// biome-ignore format: a table
const CASES: readonly FilterCase[] = [
  { options: ['--exclude=*.txt'], without: /\.txt$/ },
  { options: ['--exclude=a*'], without: /^a/ },
  { options: ['--exclude=one'], without: /\/one$/ },
  { options: ['--exclude=/one'], without: /^$/ },
  { options: ['--exclude=/dir'], without: /^dir(\/|$)/ },
  { options: ['--exclude=/dir/'], without: /^dir(\/|$)/ },
  { options: ['--exclude=one/'], without: /^$/ },
  { options: ['--exclude=link/'], without: /^$/ },
  { options: ['--exclude=sub/'], without: /sub/ },
  { options: ['--exclude=dir/sub'], without: /sub/ },
  { options: ['--exclude=/dir/*'], without: /^dir\/./ },
  { options: ['--exclude=dir/**'], without: /^dir\/./ },
  { options: ['--exclude=dir/***'], without: /^dir(\/|$)/ },
  { options: ['--exclude=**/bottom'], without: /bottom$/ },
  { options: ['--exclude=/dir/**/bottom'], without: /bottom$/ },
  { options: ['--exclude=d*/one'], without: /\/one$/ },
  { options: ['--exclude=?.txt'], without: /^[ab]\.txt$/ },
  { options: ['--exclude=[ab].txt'], without: /^[ab]\.txt$/ },
  { options: ['--exclude=[!a]*.txt'], without: /^b\.txt$/ },
  { options: ['--exclude=[[:alpha:]].txt'], without: /^[ab]\.txt$/ },
  { options: ['--exclude=star\\*'], without: /^star/ },
  { options: ['--exclude=br[a]ck'], without: /^$/ },
  { options: ['--exclude=br\\[a]ck'], without: /^br/ },
  { options: ['--exclude=sp ace'], without: /^sp/ },
  { options: ['--exclude=-dash'], without: /^-dash/ },
  { options: ['--exclude=.*'], without: /(^|\/)\./ },
  { options: ['--include=a.txt', '--exclude=*.txt'], without: /^(ab|b)\.txt$/ },
  { options: ['--include=*/', '--include=one', '--exclude=*'], without: /^(?!((dir|dir2|empty|sp ace|dir\/sub|dir\/sub\/deep)(\/one)?)$)/ },
  { options: ['--include=/dir/', '--include=/dir/sub/***', '--exclude=*'], without: /^(?!dir$|dir\/sub)/ },
  { options: ['--filter=- *.txt'], without: /\.txt$/ },
  { options: ['--filter=+ a.txt', '--filter=-_*.txt'], without: /^(ab|b)\.txt$/ },
  { options: ['--filter=-! */', '--filter=- sub'], without: /sub|^(?!(dir|dir2|empty|sp ace)$)/, since: 29 },
  { options: ['--filter=-/ /root/dir'], without: /^dir(\/|$)/, since: 29 },
  { options: ['--filter=hide *.txt'], without: /\.txt$/, since: 29 },
  { options: ['--filter=H *.txt', '--filter=P one'], without: /\.txt$/, since: 29 },
  { options: ['--filter=S a.txt', '--filter=H *.txt'], without: /^(ab|b)\.txt$/, since: 29 },
  { options: ['--filter=- *.txt', '--filter=!'], without: /^$/ },
  { options: ['--filter=dir-merge .rsync-filter'], without: /^dir\/two$/, since: 29 },
  { options: ['--filter=: .rsync-filter', '--exclude=one'], without: /^dir\/two$|\/one$/, since: 29 },
  { options: ['--filter=:e .rsync-filter'], without: /^dir\/two$|rsync-filter$/, since: 29 },
  { options: ['-F'], without: /^dir\/two$/, since: 29 },
  { options: ['-FF'], without: /^dir\/two$|rsync-filter$/, since: 29 },
  { options: ['--exclude-from=RULES'], rules: '# a comment\n\n*.txt\n/dir/sub\n', without: /\.txt$|sub/ },
  { options: ['--include-from=RULES', '--exclude=*'], rules: 'a.txt\n', without: /^(?!a\.txt$)/ },
  { options: ['--filter=merge RULES'], rules: '+ a.txt\n- *.txt\n', without: /^(ab|b)\.txt$/ },
  { options: ['--cvs-exclude'], without: /\.o$/ },
  { options: ['-C', '--exclude=one'], without: /\.o$|\/one$/ },
  { options: ['-m', '--exclude=one'], without: /\/one$|^dir2$|^empty$/, since: 29 },
]

let server: TestServer
before(async () => {
  server = await startServer({ 1: smallTree() })
})
after(() => server?.stop())

for (const protocol of PROTOCOLS) {
  describe(`protocol ${protocol}`, { concurrency: 4 }, () => {
    for (const { options, without, since = 0, rules } of CASES) {
      const skip = protocol < since ? `the client refuses such rules below ${since}` : false
      test(`protocol ${protocol}: ${options.join(' ')}`, { skip }, async () => {
        const device = server.place('filtered')
        const rulesFile = server.place('rules')
        if (rules !== undefined) writeFileSync(rulesFile, rules)
        const given = options.map((option) => option.replace('RULES', rulesFile))
        const args = ['-rl', ...given, `${server.url}/build-1/root/`, device]
        const { command } = await rsyncSucceeds(args, { protocol })
        const expected = SMALL_TREE_PATHS.filter((path) => !without.test(path))
        assert.deepEqual(pathsOf(snapshot(device)), expected, command)
      })
    }

    test(`protocol ${protocol}: what is excluded cannot be asked for either`, async () => {
      const device = server.place('excluded', 'make')
      const args = ['-rl', '--exclude=a.txt', `${server.url}/build-1/root/a.txt`, `${device}/`]
      await rsyncSucceeds(args, { protocol })
      assert.deepEqual(pathsOf(snapshot(device)), [])
    })
  })
}
