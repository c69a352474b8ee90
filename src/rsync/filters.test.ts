import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryTree } from '../../test/support/memory-tree.ts'
import { PeerError } from '../errors.ts'
import { ascii, type ByteString } from '../lib/bytes.ts'
import { Pacer } from '../lib/pacer.ts'
import { type FilterScope, Filters } from './filters.ts'
import { lookup } from './paths.ts'
import { parseRule } from './wire/filters.ts'

const filters = (rules: readonly string[], cvs = false): Filters =>
  new Filters(
    rules.map((rule) => parseRule(rule as ByteString, false)),
    { cvsExclude: cvs },
  )

/** Names with a slash behind them are directories. `root` is the path of the transfer root in the module. */
async function keeps(
  filters: Filters,
  name: string,
  root = '',
  scope: FilterScope = filters.outermost(),
): Promise<boolean> {
  const isDirectory = name.endsWith('/')
  const plain = (isDirectory ? name.slice(0, -1) : name) as ByteString
  const path = (root === '' ? plain : `${root}/${plain}`) as ByteString
  return await filters.keeps(plain, path, isDirectory, scope, new Pacer())
}

/** docs/rsync-protocol.md, section 5.4: each row of its table, and what is said around it. */
const TABLE: readonly { rules: string[]; kept?: string[]; dropped?: string[]; root?: string }[] = [
  { rules: [], kept: ['a', 'd/', 'd/a'] },
  // The first rule that matches decides.
  { rules: ['- a'], kept: ['b', 'ab', 'a/b'], dropped: ['a', 'a/', 'd/a'] },
  { rules: ['+ a', '- *'], kept: ['a', 'd/a'], dropped: ['b', 'd/', 'd/b'] },
  { rules: ['- a', '+ a'], dropped: ['a'] },
  { rules: ['+ */', '+ *.c', '- *'], kept: ['d/', 'd/e/', 'd/x.c'], dropped: ['x', 'd/x.h'] },
  { rules: ['- a', '!', '- b'], kept: ['a'], dropped: ['b'] },
  // No slash and no **: the last component.
  { rules: ['- *.o'], kept: ['a.c', 'x.o/a'], dropped: ['a.o', 'd/a.o', 'x.o/'] },
  { rules: ['- fo?'], kept: ['fo', 'fooo'], dropped: ['foo', 'd/foo'] },
  { rules: ['- br\\[a\\]ck?'], kept: ['br\\[a\\]ckx'], dropped: ['br[a]ckx'] },
  { rules: ['- back\\slash'], kept: ['backslash'], dropped: ['back\\slash', 'd/back\\slash'] },
  // Directories only.
  { rules: ['- d/'], kept: ['d', 'x/d'], dropped: ['d/', 'x/d/'] },
  { rules: ['- */'], kept: ['a'], dropped: ['d/', 'd/e/'] },
  { rules: ['- /'], kept: ['a', 'd/'] },
  // Anchored: the whole name.
  { rules: ['- /a'], kept: ['d/a', 'a/b', 'ab'], dropped: ['a', 'a/'] },
  { rules: ['- /d/a'], kept: ['d', 'a', 'x/d/a'], dropped: ['d/a'] },
  { rules: ['- /d/*'], kept: ['d/', 'd/e/f', 'x/d/a'], dropped: ['d/a', 'd/e/'] },
  { rules: ['- /*'], kept: ['d/a'], dropped: ['a', 'd/'] },
  { rules: ['- /d/**'], kept: ['d/', 'x/d/a'], dropped: ['d/a', 'd/e/f'] },
  // Slashes, not anchored, wild, without **: so many components from the end.
  { rules: ['- d/*.o'], kept: ['a.o', 'd/e/a.o', 'xd/a.o'], dropped: ['d/a.o', 'x/d/a.o'] },
  { rules: ['- a/*/b'], kept: ['a/b', 'a/x/y/b'], dropped: ['a/x/b', 'z/a/x/b'] },
  // Not wild, not anchored: equal, or at the end behind a slash.
  { rules: ['- d/a'], kept: ['a', 'xd/a', 'd/ab', 'd/a/b'], dropped: ['d/a', 'x/d/a', 'd/a/'] },
  // ** at the start: also with a slash before the name.
  { rules: ['- **/x'], kept: ['ax', 'x/a'], dropped: ['x', 'a/x', 'a/b/x', 'x/'] },
  { rules: ['- **x'], kept: ['xa'], dropped: ['x', 'ax', 'a/bx'] },
  // ** elsewhere: the name and each tail behind a slash.
  { rules: ['- a/**/b'], kept: ['a/b', 'xa/y/b'], dropped: ['a/x/b', 'z/a/x/y/b'] },
  { rules: ['- a**b'], kept: ['ba'], dropped: ['ab', 'a/b', 'x/ab', 'x/a/c/b'] },
  // dir/***: the directory itself, too.
  { rules: ['- d/***'], kept: ['d', 'xd/'], dropped: ['d/', 'd/a', 'd/e/f', 'x/d/', 'x/d/a'] },
  { rules: ['- /d/***'], kept: ['d', 'x/d/', 'x/d/a'], dropped: ['d/', 'd/a', 'd/e/f'] },
  { rules: ['- **/d/***'], kept: ['d', 'dd/'], dropped: ['d/', 'd/a', 'x/d/', 'x/d/e/f'] },
  // Negated.
  { rules: ['-! *.c'], kept: ['a.c', 'd/a.c'], dropped: ['a.h', 'd/'] },
  { rules: ['-! */'], kept: ['d/'], dropped: ['a'] },
  { rules: ['+! a', '- *'], kept: ['b'], dropped: ['a'] },
  // From the module's root.
  { root: 'top/sub', rules: ['-/ /top/sub/a'], kept: ['b', 'd/a'], dropped: ['a'] },
  { root: 'top/sub', rules: ['-/ sub/a'], kept: ['b', 'd/a'], dropped: ['a'] },
  { root: 'top/sub', rules: ['-/ a'], kept: ['b'], dropped: ['a', 'd/a'] },
  { root: 'top/sub', rules: ['-/ /top/*'], kept: ['a'] },
  { root: 'top/sub', rules: ['-/ /top/**'], dropped: ['a', 'd/'] },
  { root: 'top/sub', rules: ['- /top/sub/a', '- top/sub/b'], kept: ['a', 'b'] },
  // Rules of the receiving side.
  { rules: ['P a', 'R b', '-r c', '-x user.*'], kept: ['a', 'b', 'c'] },
  { rules: ['H a', 'S b', '-s *'], kept: ['b'], dropped: ['a', 'c'] },
  // CVS's own.
  {
    rules: ['-C'],
    kept: ['a.c', 'core.c', 'git/'],
    dropped: ['a.o', 'd/a~', '.git/', 'CVS', 'core', '#x', 'd/.svn/'],
  },
  { rules: ['+ *.o', '-C'], kept: ['a.o'], dropped: ['a.a'] },
]
for (const { rules, root, kept = [], dropped = [] } of TABLE) {
  test(`filters: ${rules.join(', ') || 'none'}${root ? ` under ${root}` : ''}`, async () => {
    const compiled = filters(rules)
    for (const name of kept) assert.ok(await keeps(compiled, name, root), `${name} should stay`)
    for (const name of dropped) assert.ok(!(await keeps(compiled, name, root)), `${name} should go`)
  })
}

test('filters: none, and none that need to enter directories', () => {
  assert.ok(filters([]).isEmpty)
  assert.ok(filters(['P a', '!']).isEmpty)
  assert.ok(!filters(['- a']).isEmpty)
  assert.ok(!filters(['- a']).hasMergeFiles)
  assert.ok(filters([': .rules']).hasMergeFiles)
  assert.ok(filters([], true).hasMergeFiles, '-C reads .cvsignore')
})

// ---------------------------------------------------------------------------------------------------
// Rule files in directories: section 5.5.

const file = (text: string) => ({ mode: 0o100644, data: Buffer.from(text) })
const dir = (children: Record<string, object>) => ({ mode: 0o040755, children: children as never })

interface MergeCase {
  name: string
  rules: string[]
  cvs?: boolean
  /** Rule files by directory. */
  files: Record<string, string>
  /** Directory to stand in, the transfer root being the module's. */
  in: string
  kept?: string[]
  dropped?: string[]
}

const MERGE: readonly MergeCase[] = [
  {
    name: 'rules of the directory',
    rules: [': .rules'],
    files: { '': '- a\n' },
    in: '',
    kept: ['b'],
    dropped: ['a'],
  },
  { name: 'no such file', rules: [': .other'], files: { '': '- a\n' }, in: '', kept: ['a'] },
  {
    name: 'parents are inherited',
    rules: [': .rules'],
    files: { '': '- a\n', d: '- b\n' },
    in: 'd',
    kept: ['d/c'],
    dropped: ['d/a', 'd/b'],
  },
  {
    name: 'the nearest file comes first',
    rules: [': .rules'],
    files: { '': '- a\n', d: '+ a\n' },
    in: 'd',
    kept: ['d/a'],
  },
  {
    name: 'n: nothing is inherited',
    rules: [':n .rules'],
    files: { '': '- a\n', d: '- b\n' },
    in: 'd',
    kept: ['d/a'],
    dropped: ['d/b'],
  },
  {
    name: 'n: not through an empty directory either',
    rules: [':n .rules'],
    files: { '': '- a\n' },
    in: 'd',
    kept: ['d/a'],
  },
  {
    name: 'inherited past a directory without a file',
    rules: [': .rules'],
    files: { '': '- a\n' },
    in: 'd/e',
    dropped: ['d/e/a'],
  },
  {
    name: 'it stands where its rule stands',
    rules: ['+ a', ': .rules', '- b'],
    files: { '': '- a\n+ b\n' },
    in: '',
    kept: ['a', 'b'],
  },
  {
    name: 'two files',
    rules: [': .rules', ': .more'],
    files: { '': '- a\n' },
    in: '',
    dropped: ['a'],
    kept: ['.more'],
  },
  {
    name: 'comments and empty lines',
    rules: [': .rules'],
    files: { '': '# - a\n\n; - a\n- b\r\n' },
    in: '',
    kept: ['a'],
    dropped: ['b'],
  },
  {
    name: 'a clear drops what came before and from above',
    rules: [': .rules'],
    files: { '': '- a\n', d: '- c\n!\n- b\n' },
    in: 'd',
    kept: ['d/a', 'd/c'],
    dropped: ['d/b'],
  },
  {
    name: 'a leading slash means the directory of the file',
    rules: [': .rules'],
    files: { d: '- /a\n- /e/x\n' },
    in: 'd',
    kept: ['a', 'd/e/a', 'e/x'],
    dropped: ['d/a', 'd/e/x'],
  },
  {
    name: 'and still does below it',
    rules: [': .rules'],
    files: { d: '- /e/a\n- /b\n' },
    in: 'd/e',
    kept: ['d/e/b'],
    dropped: ['d/e/a'],
  },
  {
    name: '-: bare patterns to leave out',
    rules: [':- .rules'],
    files: { '': 'a\n+ b\n' },
    in: '',
    kept: ['b'],
    dropped: ['a', '+ b'],
  },
  {
    name: '+: bare patterns to keep',
    rules: [':+ .rules', '- *'],
    files: { '': 'a\n' },
    in: '',
    kept: ['a'],
    dropped: ['b'],
  },
  {
    name: 'w: words',
    rules: [':w .rules'],
    files: { '': '-_a +_c -_* ' },
    in: '',
    kept: ['c'],
    dropped: ['a', 'b'],
  },
  { name: 'C: words to leave out', rules: [':C'], files: { '': 'a *.b\n# ! ' }, in: '', kept: ['a', 'x.b'] },
  {
    name: 'w: bytes that are white space in other charsets separate nothing',
    rules: [':w- .rules'],
    files: { '': '\u00e0 b\x0bc' },
    in: '',
    kept: ['\xc3'],
    dropped: ['\xc3\xa0', 'b', 'c'],
  },
  {
    name: 'lines may end as on other systems',
    rules: [':- .rules'],
    files: { '': 'a\r\n\r\n# c\r\nb\n' },
    in: '',
    kept: ['c', '# c'],
    dropped: ['a', 'b'],
  },
  {
    name: 'CVS defaults inside a file',
    rules: [': .rules'],
    files: { '': '-C\n' },
    in: '',
    kept: ['a.c'],
    dropped: ['a.o'],
  },
  {
    name: '-C of the command line',
    rules: [],
    cvs: true,
    files: { '': '- a\n' },
    in: '',
    kept: ['c'],
    dropped: ['a', 'b.o'],
  },
]
for (const { name, rules, cvs, files, in: where, kept = [], dropped = [] } of MERGE) {
  test(`rule files: ${name}`, async () => {
    const rulesIn = (path: string): Record<string, object> => {
      const text = files[path]
      return text === undefined ? {} : { '.rules': file(text), '.cvsignore': file(text) }
    }
    const tree = new MemoryTree(dir({ ...rulesIn(''), d: dir({ ...rulesIn('d'), e: dir(rulesIn('d/e')) }) }))
    try {
      const compiled = filters(rules, cvs)
      let scope = await compiled.enter(tree, 0, ascii(''), compiled.outermost(), new Pacer())
      const parts = where === '' ? [] : where.split('/')
      for (const i of parts.keys()) {
        const path = parts.slice(0, i + 1).join('/') as ByteString
        scope = await compiled.enter(tree, await lookup(tree, path, false), path, scope, new Pacer())
      }
      for (const kept_ of kept) assert.ok(await keeps(compiled, kept_, '', scope), `${kept_} should stay`)
      for (const name of dropped) assert.ok(!(await keeps(compiled, name, '', scope)), `${name} should go`)
    } finally {
      tree.close()
    }
  })
}

test('rule files: above the transfer only those count that are searched for there', async () => {
  const tree = new MemoryTree(dir({ '.rules': file('- a\n- /d/b\n'), d: dir({}) }))
  try {
    for (const [rule, drops] of [
      [': /.rules', true],
      [': .rules', false],
      [': ../.rules', true],
      [': ../../../.rules', true],
      [': d/../../.rules', true],
      [': ./.rules', false],
      [': x/.rules', false],
      [': /d/.rules', false],
      [': /d/../.rules', true],
      [': /x/.rules', false],
    ] as const) {
      const compiled = filters([rule])
      const above = await compiled.enter(tree, 0, ascii(''), compiled.outermost(), new Pacer(), ascii('d'))
      const scope = await compiled.enter(
        tree,
        await lookup(tree, ascii('d'), false),
        ascii('d'),
        above,
        new Pacer(),
      )
      assert.equal(await keeps(compiled, 'a', 'd', scope), !drops, rule)
      assert.equal(await keeps(compiled, 'b', 'd', scope), !drops, 'anchored at the directory of the file')
      assert.equal(await keeps(compiled, 'c', 'd', scope), true)
    }
  } finally {
    tree.close()
  }
})

test('rule files: reading one rests between rules, and is given up there', async () => {
  class Counting extends Pacer {
    asked = 0
    override get due(): boolean {
      this.asked++
      return this.asked > 2500
    }
  }
  for (const [rule, line] of [
    [': .rules', '- a\n'],
    [': .rules', '-C\n'],
    [': .rules', '!\n'],
    [':- .rules', 'a\n'],
    [':w- .rules', 'a '],
  ] as const) {
    const tree = new MemoryTree(dir({ '.rules': file(line.repeat(2500)), d: dir({ '.rules': file(line) }) }))
    try {
      const compiled = filters([rule])
      const abort = new AbortController()
      const pacer = new Counting(abort.signal)
      const enter = () => compiled.enter(tree, 0, ascii(''), compiled.outermost(), pacer)
      await enter()
      assert.ok(pacer.asked >= 2500, `asked only ${pacer.asked} times: ${rule}`)
      abort.abort(new Error('gone'))
      await assert.rejects(enter(), /gone/)
    } finally {
      tree.close()
    }
  }
})

test('rule files: between the start of the search and the transfer', async () => {
  const tree = new MemoryTree(
    dir({
      '.rules': file('- a\n'),
      d: dir({ '.rules': file('- b\n'), e: dir({ '.rules': file('- c\n') }) }),
    }),
  )
  try {
    for (const [rule, dropped] of [
      [': .rules', 'c'],
      [': /.rules', 'abc'],
      [': /d/.rules', 'bc'],
      [': /d/e/.rules', 'c'],
      [': /d/ee/.rules', 'c'],
      [': ../.rules', 'bc'],
      [': ../../.rules', 'abc'],
    ] as const) {
      const compiled = filters([rule])
      let scope = compiled.outermost()
      for (const path of ['', 'd'] as ByteString[]) {
        scope = await compiled.enter(
          tree,
          await lookup(tree, path, false),
          path,
          scope,
          new Pacer(),
          ascii('d/e'),
        )
      }
      scope = await compiled.enter(
        tree,
        await lookup(tree, ascii('d/e'), false),
        ascii('d/e'),
        scope,
        new Pacer(),
      )
      for (const name of ['a', 'b', 'c']) {
        assert.equal(await keeps(compiled, name, 'd/e', scope), !dropped.includes(name), `${rule}: ${name}`)
      }
    }
  } finally {
    tree.close()
  }
})

test('rule files: with / all of their patterns are for paths from the module', async () => {
  const text = '- /top/d/a\n- /b\n- d/c\n- top/e\n'
  const tree = new MemoryTree(dir({ top: dir({ '.rules': file(text) }) }))
  try {
    const compiled = filters([':/ .rules'])
    const top = await lookup(tree, ascii('top'), false)
    const scope = await compiled.enter(tree, top, ascii('top'), compiled.outermost(), new Pacer())
    for (const [name, kept] of [
      ['d/a', false],
      ['b', true],
      ['d/c', false],
      ['e', false],
      ['a', true],
    ] as const) {
      assert.equal(await keeps(compiled, name, 'top', scope), kept, name)
    }
  } finally {
    tree.close()
  }
})

test('rules for attributes: the first that matches decides, and they are none for files', async () => {
  const compiled = filters(['-x user.same', '+x user.*', '-x *', '- user.file'])
  assert.ok(compiled.hasAttributeRules)
  for (const [name, kept] of [
    ['user.same', false],
    ['user.other', true],
    ['user.file', true],
    ['system.posix_acl_access', false],
  ] as const) {
    assert.equal(await compiled.keepsAttribute(ascii(name), new Pacer()), kept, name)
  }
  assert.ok(await keeps(compiled, 'user.same'))
  assert.ok(!(await keeps(compiled, 'user.file')))
  assert.ok(!(await filters(['-x! user.*']).keepsAttribute(ascii('trusted.a'), new Pacer())))
  assert.ok(!filters(['-x a', '!']).hasAttributeRules)
  assert.ok(filters(['-x a']).isEmpty)
})

test('rule files: with --from0 lines end in NUL', async () => {
  const tree = new MemoryTree(dir({ '.rules': file('- a\0- b\0'), d: dir({ '.rules': file('- c\n- d\n') }) }))
  try {
    const compiled = new Filters([parseRule(ascii(': .rules'), false)], { from0: true })
    const root = await compiled.enter(tree, 0, ascii(''), compiled.outermost(), new Pacer())
    const node = await lookup(tree, ascii('d'), false)
    const scope = await compiled.enter(tree, node, ascii('d'), root, new Pacer())
    for (const [name, kept] of [
      ['a', false],
      ['b', false],
      // The other file holds one rule, for a name of two lines.
      ['c', true],
      ['d', true],
      ['c\n- d\n', false],
    ] as const) {
      assert.equal(await keeps(compiled, name, 'd', scope), kept, name)
    }
  } finally {
    tree.close()
  }
})

test('rule files: one that is no regular file is none', async () => {
  const tree = new MemoryTree(dir({ '.rules': dir({}) }))
  try {
    const compiled = filters([': .rules'])
    const scope = await compiled.enter(tree, 0, ascii(''), compiled.outermost(), new Pacer())
    assert.ok(await keeps(compiled, 'a', '', scope))
  } finally {
    tree.close()
  }
})

// ---------------------------------------------------------------------------------------------------
// How much one list may take.

const limited = (rules: readonly string[], mostSteps: number): Filters =>
  new Filters(
    rules.map((rule) => parseRule(rule as ByteString, false)),
    { mostSteps },
  )

test('filters: names and rules that are too many together are refused, with what to do', async () => {
  const refused = (error: unknown) =>
    error instanceof PeerError && /too many rules for so many names: use fewer/.test(error.message)
  const wild = Array.from({ length: 20 }, (_, n) => `- *.${n}`)
  const compiled = limited(wild, 800)
  for (let n = 0; n < 5; n++) assert.ok(await keeps(compiled, `a${n}`))
  await assert.rejects(async () => await keeps(compiled, 'a'), refused)

  // By what patterns take as well.
  const long = limited([`- ${'*a'.repeat(50)}b*`], 400)
  await assert.rejects(async () => {
    for (let n = 0; n < 3; n++) await keeps(long, 'a'.repeat(100))
  }, refused)

  const attributes = limited(
    wild.map((rule) => rule.replace('- ', '-x ')),
    160,
  )
  assert.ok(await attributes.keepsAttribute(ascii('user.a'), new Pacer()))
  await assert.rejects(attributes.keepsAttribute(ascii('user.b'), new Pacer()), refused)
})

test('filters: ten thousand names are looked up, also those of rule files', async () => {
  const names = Array.from({ length: 10_000 }, (_, n) => `name-${n}`)
  const rules = names.map((name) => `- ${name}`)
  const compiled = limited(rules, 1600)
  for (let n = 0; n < 100; n++) {
    assert.ok(await keeps(compiled, `d/kept-${n}`))
    assert.ok(!(await keeps(compiled, `d/name-${n}`)))
  }

  const tree = new MemoryTree(dir({ '.rules': file(rules.join('\n')), d: dir({ '.rules': file('- x') }) }))
  const merging = limited([': .rules'], 1600)
  const outer = await merging.enter(tree, 0, '' as ByteString, merging.outermost(), new Pacer())
  const inner = await merging.enter(tree, tree.child(0, ascii('d')), 'd' as ByteString, outer, new Pacer())
  for (let n = 0; n < 50; n++) {
    assert.ok(await keeps(merging, `d/kept-${n}`, '', inner))
    assert.ok(!(await keeps(merging, `d/name-${n}`, '', inner)))
  }
})

test('filters: whoever rested between rules goes on where it was', async () => {
  const wild = Array.from({ length: 40 }, (_, n) => `- *.${n}`)
  const tree = new MemoryTree(
    dir({ '.rules': file([...wild, '- exact'].join('\n')), d: dir({ '.rules': file('- hidden*\n- *.z') }) }),
  )
  const compiled = limited([...wild, ': .rules', '- last*'], 100_000)
  const outer = await compiled.enter(tree, 0, '' as ByteString, compiled.outermost(), new Pacer())
  const scope = await compiled.enter(tree, tree.child(0, ascii('d')), 'd' as ByteString, outer, new Pacer())
  class Hurried extends Pacer {
    rests = 0
    #looks = 0
    override get due(): boolean {
      return ++this.#looks % 2 === 0
    }
    override async rest(): Promise<void> {
      this.rests++
    }
  }
  for (const [name, kept] of [
    ['hidden-1', false],
    ['exact', false],
    ['last-1', false],
    ['other', true],
  ] as const) {
    const pacer = new Hurried()
    const path = ascii(name)
    assert.equal(await compiled.keeps(path, path, false, scope, pacer), kept, name)
    assert.ok(pacer.rests > 0)
  }
})

test('filters: tables that names are looked up in cost something, too', async () => {
  const rules = Array.from({ length: 50 }, (_, n) => `- ${'a/'.repeat(n)}b`)
  const compiled = limited(rules, 50 * 8)
  assert.ok(await keeps(compiled, 'c'))
  await assert.rejects(async () => await keeps(compiled, 'c'), /too many rules/)
})

test('filters: a line of a rule file as long as the file is compiled in time for others', async () => {
  const compiled = limited([': .rules'], 1e9)
  const tree = new MemoryTree(dir({ '.rules': file(`- ${'a'.repeat(2 ** 20 - 100)}*b`) }))
  const pacer = new Pacer()
  const scope = await compiled.enter(tree, 0, '' as ByteString, compiled.outermost(), pacer)
  const began = process.cpuUsage()
  assert.ok(await compiled.keeps(ascii('a'), ascii('a'), false, scope, pacer))
  const { user } = process.cpuUsage(began)
  assert.ok(user < 5e6, `${user} us: it takes the square of its length`)
})

test('filters: tens of thousands of rules are compiled with rests', async () => {
  const rules = [...Array.from({ length: 20_000 }, (_, n) => `- ${n.toString(36)}`), '!', '- a']
  class Counting extends Pacer {
    rests = 0
    override get due(): boolean {
      return true
    }
    override async rest(): Promise<void> {
      this.rests++
    }
  }
  const pacer = new Counting()
  const parsed = rules.map((rule) => parseRule(rule as ByteString, false))
  const compiled = await Filters.of(parsed, { cvsExclude: true }, pacer)
  assert.equal(pacer.rests, rules.length)
  for (const [name, kept] of Object.entries({ a: false, b: true, 'b.o': false }))
    assert.equal(await keeps(compiled, name), kept, name)
  assert.ok(compiled.hasMergeFiles, '-C reads .cvsignore')
})
