/** examples/olpc.toml against a copy of the layouts that it is for. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findProgram } from '../../src/lib/find-program.ts'
import { type ArchiveSuffix, makeArchive } from '../support/archive.ts'
import { Mirror } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { rsyncEnds } from '../support/rsync.ts'
import { assertSameTree, snapshot } from '../support/snapshot.ts'
import { makeTree, SpecWriter, type TreeSpec } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const EXAMPLE = fileURLToPath(new URL('../../examples/olpc.toml', import.meta.url))
const STREAMS = 'pilgrim.laptop.org/~pilgrim/olpc/streams'

interface Published {
  id: string
  source: string
  /** Below the root of all hosts. */
  path: string
  form: ArchiveSuffix | 'ext3' | 'iso'
  md5?: boolean
  contents?: string
  /** The tree lies in versions/pristine, as in archives for the XO. */
  pristine?: boolean
}

const BUILDS: Published[] = [
  {
    id: 'update.1-708',
    source: 'pilgrim',
    path: `${STREAMS}/update.1/build708/devel_jffs2/xo-1-olpc-stream-update.1-devel_jffs2-tree.tar.bz2`,
    form: 'tar.bz2',
    md5: true,
    pristine: true,
    contents: `${STREAMS}/update.1/build708/devel_jffs2/xo-1-olpc-stream-update.1-devel_jffs2.contents`,
  },
  {
    id: 'ship.2-659',
    source: 'xs-dev',
    path: 'xs-dev.laptop.org/~cscott/xo-1/streams/ship.2/build659/devel_jffs2/olpc-redhat-stream-ship.2-build-659-20080114_1730-devel_jffs2-tree.tar.bz2',
    form: 'tar.bz2',
    md5: true,
    pristine: true,
    contents:
      'xs-dev.laptop.org/~cscott/xo-1/streams/ship.2/build659/devel_jffs2/olpc-redhat-stream-ship.2-build-659-20080114_1730-devel_jffs2.contents',
  },
  {
    id: 'joyride-2230',
    source: 'images',
    path: `${STREAMS}/joyride/build2230/devel_ext3/xo-1-olpc-stream-joyride-devel_ext3.img.bz2`,
    form: 'ext3',
  },
  {
    id: 'ship.2-650',
    source: 'xs-dev-images',
    path: 'xs-dev.laptop.org/~cscott/xo-1/streams/ship.2/build650/devel_ext3/olpc-redhat-stream-ship.2-build-650-20071205_2103-devel_ext3.img.bz2',
    form: 'ext3',
  },
  {
    id: '13.2.10_xo1.75-22',
    source: 'official',
    path: 'download.laptop.org/xo-1.75/os/official/13.2.10-22/32022o2.tree.tar.lzma',
    form: 'tar.lzma',
    md5: true,
    pristine: true,
    contents: 'download.laptop.org/xo-1.75/os/official/13.2.10-22/32022o2.toc',
  },
  {
    id: '11.3.0_xo1-883',
    source: 'official',
    path: 'download.laptop.org/xo-1/os/official/11.3.0-883/13883o0-tree.tar.lzma',
    form: 'tar.lzma',
    md5: true,
    contents: 'download.laptop.org/xo-1/os/official/11.3.0-883/13883o0.toc',
  },
  {
    id: 'candidate_13.2.0_xo4-12',
    source: 'candidates',
    path: 'download.laptop.org/xo-4/os/candidate/13.2.0-12/32012o4.tree.tar.lzma',
    form: 'tar.lzma',
    md5: true,
    pristine: true,
  },
  {
    id: '13.2.0_xo4-13',
    source: 'usb',
    path: 'download.laptop.org/xo-4/os/official/13.2.0-13/32013o4.usb',
    form: 'iso',
  },
]

function treeOf(id: string): TreeSpec {
  const tree = new SpecWriter()
  const mtime = 1_193_961_600
  tree.directory('', { mtime })
  tree.directory('etc', { mtime })
  tree.file('etc/issue', Buffer.from(`OLPC build ${id}\n`), { mtime })
  tree.symlink('etc/link', 'issue', { mtime })
  return tree.spec
}

const tools = await Promise.all(
  ['nginx', 'xorriso', 'bsdtar', 'bzip2', 'xz'].map((tool) => findProgram(tool)),
)
const skip = tools.includes(undefined) && 'needs nginx, xorriso, bsdtar, bzip2 and xz'

describe('the layouts of OLPC', { skip }, () => {
  const mirror = new Mirror()
  let upserv: Upserv

  before(async () => {
    for (const build of BUILDS) await publish(mirror, build)
    await mirror.startNginx()
    const config = mirror.path('olpc.toml')
    writeFileSync(config, readFileSync(EXAMPLE, 'utf8').replaceAll('http://', `${mirror.nginx.url}/`))
    upserv = await mirror.startUpserv({ config, sources: [] })
  })
  after(() => mirror[Symbol.asyncDispose]())

  for (const { id, source, contents, md5 } of BUILDS)
    test(`${id}, from ${source}`, async () => {
      const { place } = await mirror.sync(upserv, id)
      const expected = new Map(snapshot(mirror.path('trees', id)))
      // Image makers give the root a time of their own.
      for (const tree of [expected]) tree.set(ROOT, snapshot(place).get(ROOT)!)
      assertSameTree(expected, snapshot(place))
      const [listed] = (
        JSON.parse((await upserv.cli(['list', '--json'])).stdout) as {
          id: string
          source: string
          checkedBy: string
        }[]
      ).filter((build) => build.id === id)
      assert.equal(listed?.source, source)
      assert.equal(listed?.checkedBy, md5 ? 'md5' : '')
      if (contents !== undefined) {
        const file = mirror.place()
        await rsyncEnds(0, [`${upserv.url}/build-${id}/contents`, file])
        assert.equal(readFileSync(file, 'utf8'), `contents of ${id}\n`)
      }
    })

  test('what is available', async () => {
    const { stdout } = await rsyncEnds(0, [`${upserv.url}/available/`])
    for (const { id } of BUILDS) assert.ok(stdout.includes(` ${id}\n`), `${id} is not in\n${stdout}`)
  })

  test('a build of a model that there is not', async () => {
    const refused = await mirror.sync(upserv, '13.2.0_xo7-13', 5)
    assert.match(refused.stderr + refused.stdout, /@ERROR: no such build/)
  })
})

const ROOT = '.' as Parameters<ReturnType<typeof snapshot>['get']>[0]

async function publish(
  mirror: Mirror,
  { id, path, form, md5, contents, pristine }: Published,
): Promise<void> {
  const tree = mirror.path('trees', id)
  makeTree(tree, treeOf(id))
  const archive = mirror.path('www', path)
  mkdirSync(dirname(archive), { recursive: true })
  const making = mirror.path('making')
  if (form === 'iso' || form === 'ext3') {
    const script =
      form === 'iso'
        ? `xorriso -as mkisofs -quiet -R -o '${making}' '${tree}'`
        : `truncate -s 8M '${making}' && /usr/sbin/mke2fs -q -F -t ext3 -d '${tree}' '${making}' && bzip2 -1 '${making}' && mv '${making}.bz2' '${making}'`
    const made = await run('sh', ['-c', script], { timeoutMs: 60_000 })
    assert.equal(made.code, 0, made.stderr)
    renameSync(making, archive)
  } else {
    const packed = mirror.path(`packed-${id}`)
    const prefix = `versions/pristine/${createHash('sha1').update(id).digest('hex')}`
    makeTree(packed, new Map([...treeOf(id)]))
    if (pristine) {
      const outer = new SpecWriter()
      for (const name of ['', 'versions', 'versions/pristine', 'boot']) outer.directory(name)
      outer.file('boot/olpc.fth', Buffer.from('a duplicate\n'))
      outer.directory(prefix, { mtime: 1_193_961_600 })
      for (const [name, node] of treeOf(id)) if (name !== '') outer.add(`${prefix}/${name}`, node)
      rmSync(packed, { recursive: true })
      makeTree(packed, outer.spec)
    }
    renameSync(await makeArchive({ tree: packed, path: making, suffix: form }), archive)
  }
  if (md5) {
    const digest = createHash('md5').update(readFileSync(archive)).digest('hex')
    writeFileSync(`${archive}.md5`, `${digest}  /home/build/tree.tar\n`)
  }
  if (contents !== undefined) writeFileSync(mirror.path('www', contents), `contents of ${id}\n`)
}
