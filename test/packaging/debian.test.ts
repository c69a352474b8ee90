/**
 * The Debian packages, on a machine of their own with systemd: built, installed, used, upgraded while a
 * client is at it, removed and purged. Each test goes on from the one before it.
 */
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findProgram } from '../../src/lib/find-program.ts'
import { VERSION } from '../../src/version.ts'
import { makeArchive } from '../support/archive.ts'
import { Machine, whyNoMachine } from '../support/machine.ts'
import { randomTree } from '../support/mirror.ts'
import { copyCheckout, pack, whyNoDeb } from '../support/packages.ts'
import { run } from '../support/processes.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { assertSameTree, snapshot } from '../support/snapshot.ts'
import { makeTree } from '../support/tree.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const NEXT_VERSION = '99.0.0'
/** What `systemd-analyze security` calls OK ends at 5; this is where we are. docs/operations.md says so. */
const EXPOSURE = 2.3
const PATIENCE_MS = 300_000
const CLIENTS = 6

const skip = (await whyNoDeb()) || (await whyNoMachine())
const skipLintian = (await findProgram('lintian')) === undefined && 'needs lintian: apt-get install lintian'
const skipCross =
  (await findProgram('aarch64-linux-gnu-strip')) === undefined &&
  'needs aarch64-linux-gnu-strip: apt-get install binutils-aarch64-linux-gnu'
const skipXinetd = (await findProgram('xinetd')) === undefined && 'needs xinetd: apt-get install xinetd'

describe('the Debian package', { skip, timeout: 15 * 60_000 }, () => {
  let scratch: Scratch
  let machine: Machine
  let deb: string
  let next: string
  let update: string
  /** Of the host; /shared of the machine. */
  const shared = (...names: string[]): string => join(scratch.path, 'machine/shared', ...names)
  const trees = new Map<string, ReturnType<typeof snapshot>>()

  before(async () => {
    scratch = makeScratch('packaging')
    for (const name of ['machine/shared/upstream', 'machine/shared/clients', 'trees']) {
      mkdirSync(join(scratch.path, name), { recursive: true, mode: 0o755 })
    }
    for (const [id, files] of [
      ['1', 3],
      ['2', 12],
    ] as const) {
      const tree = join(scratch.path, 'trees', id)
      makeTree(tree, randomTree(Number(id), files, 200_000))
      copyFileSync(
        await makeArchive({ tree, path: `${tree}-archive`, suffix: 'tar.xz', sha256: false }),
        shared('upstream', `${id}.tar.xz`),
      )
      trees.set(id, snapshot(tree))
    }
    copyCheckout(join(scratch.path, 'one'))
    ;({ deb, update } = await pack(join(scratch.path, 'one'), join(scratch.path, 'out'), ['deb']))
    ;({ deb: next } = await pack(join(scratch.path, 'one'), join(scratch.path, 'next'), [
      '--version',
      NEXT_VERSION,
      'deb',
    ]))
    for (const path of [deb, next, update]) copyFileSync(path, shared(basename(path)))
    machine = await Machine.boot(join(scratch.path, 'machine'))
  })
  after(async () => {
    await machine?.[Symbol.asyncDispose]()
    scratch?.[Symbol.dispose]()
  })

  const property = async (name: string, unit = 'upserv.service'): Promise<string> =>
    (await machine.succeeds('systemctl', ['show', '--value', '--property', name, unit])).trim()
  const shell = (script: string): Promise<string> => machine.succeeds('sh', ['-ec', script])
  let places = 0
  const sync = async (id: string, ...args: string[]): Promise<void> => {
    const place = String(++places)
    await machine.succeeds(
      'rsync',
      ['-aH', ...args, `rsync://127.0.0.1/build-${id}/root/`, `/shared/clients/${place}/`],
      {
        timeoutMs: PATIENCE_MS,
      },
    )
    assertSameTree(snapshot(shared('clients', place)), trees.get(id)!)
  }
  const until = async (what: string, holds: () => Promise<boolean>): Promise<void> => {
    const deadline = performance.now() + PATIENCE_MS
    while (!(await holds())) {
      assert.ok(performance.now() < deadline, `${what}: not within ${PATIENCE_MS} ms`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }

  test('lintian finds no error', { skip: skipLintian }, async () => {
    const { code, stdout, stderr } = await run(
      'lintian',
      ['--fail-on', 'error', '--display-level', '>=warning', '--allow-root', deb, update],
      {
        timeoutMs: PATIENCE_MS,
      },
    )
    assert.equal(code, 0, stdout + stderr)
    assert.doesNotMatch(stdout, /^E:/m)
  })

  test('for another architecture, with the maintainer that the environment names', {
    skip: skipCross,
  }, async () => {
    const out = join(scratch.path, 'arm64')
    const env = { DEBFULLNAME: 'Ana Operator', DEBEMAIL: 'ana@example.org' }
    const made = await pack(join(scratch.path, 'one'), out, ['--arch', 'arm64', 'deb'], env)
    const fields = async (path: string): Promise<string> => (await run('dpkg-deb', ['--field', path])).stdout
    const [here, there] = [await fields(deb), await fields(made.deb)]
    assert.match(there, /^Architecture: arm64$/m)
    assert.match(there, /^Maintainer: Ana Operator <ana@example\.org>$/m)
    const depends = (text: string): string | undefined => /^Depends: .*libc6 \(>= .*$/m.exec(text)?.[0]
    assert.ok(depends(there))
    assert.equal(depends(there), depends(here))
    await run('dpkg-deb', ['--extract', made.deb, join(out, 'root')], { timeoutMs: PATIENCE_MS })
    const { stdout } = await run('readelf', ['--file-header', join(out, 'root/usr/lib/upserv/node')])
    assert.match(stdout, /Machine: +AArch64/)
  })

  test('dpkg -i: a user, a directory, a configuration, and a server that listens', async () => {
    const said = await machine.succeeds('dpkg', ['--install', `/shared/${basename(deb)}`], {
      timeoutMs: PATIENCE_MS,
    })
    assert.match(said, /What comes next:[\s\S]*upserv doctor/)
    assert.match(await shell('id upserv'), /^uid=\d+\(upserv\) gid=\d+\(upserv\)/)
    assert.equal(await shell('stat -c "%U:%G %a" /var/lib/upserv'), 'upserv:upserv 750\n')
    assert.match(await shell('dpkg --status upserv'), /^ \/etc\/upserv\/upserv\.toml [0-9a-f]{32}$/m)
    assert.equal(await shell('systemctl is-active upserv.socket upserv.service'), 'active\nactive\n')
    assert.equal(await shell('systemctl is-enabled upserv.socket upserv.service'), 'enabled\nenabled\n')
    assert.match(await property('StatusText'), /^serving rsync:\/\/\[::\]:873$/)
    await shell('rsync rsync://127.0.0.1/ && rsync rsync://[::1]/')
    // The page, with what it loads.
    const page = await shell('curl -sSf http://127.0.0.1:8730/')
    const loaded = [...page.matchAll(/(?:src|href)="\/?(page\/[^"]+)"/g)].map(([, path]) => path!)
    assert.ok(loaded.length > 1, page)
    for (const path of loaded) await shell(`curl -sSf http://127.0.0.1:8730/${path}`)
    await shell('test -s /usr/share/doc/upserv/examples/grafana-dashboard.json*')
    assert.equal((await machine.succeeds('upserv', ['--version'])).trim(), VERSION)
    // Nothing failed, and doctor has no more to say than that nobody has said where builds are.
    const doctor = await machine.succeeds('upserv', ['doctor'])
    assert.doesNotMatch(doctor, /^problem/m)
    assert.match(doctor, /^warning +sources .*none/m)
  })

  test('as the message says: edit, reload, doctor, sync', async () => {
    await shell(`cat >>/etc/upserv/upserv.toml <<'EOF'
[[source]]
name = "stick"
url  = "file:///shared/upstream/{build}.tar.xz"
EOF
! systemctl -q is-active upserv || systemctl reload upserv`)
    await until('the source is known', async () =>
      /^ok +source stick /m.test((await machine.run('upserv', ['doctor'])).stdout),
    )
    await sync('1')
    // Behind systemd's doors the history has its database, and the metrics what they read of the process.
    await until('the session is remembered', async () =>
      / build-1 +done/.test(await machine.succeeds('upserv', ['history', '--build', '1'])),
    )
    // In the journal each fact has a field. What a client sends stays inside of its own, and no secret is in any.
    await machine.run('sh', ['-c', `rsync "rsync://127.0.0.1/bu$(printf '\\033[2J')x/"`])
    const entries = async (match: string): Promise<Record<string, unknown>[]> =>
      (await shell(`journalctl -u upserv -o json ${match}`))
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    await until('the refusal is in the journal', async () => {
      const refused = await entries('UPSERV_OUTCOME=refused')
      return refused.some(({ UPSERV_MODULE }) => /^bu\S*2Jx$/.test(String(UPSERV_MODULE)))
    })
    const [entry] = await entries('UPSERV_BUILD=1 UPSERV_DEVICE=127.0.0.1 UPSERV_OUTCOME=done')
    assert.ok(entry)
    assert.match(String(entry.UPSERV_SESSION), /^\d+$/)
    assert.deepEqual(
      [entry.PRIORITY, entry.SYSLOG_IDENTIFIER, entry._SYSTEMD_UNIT, entry.UPSERV_MODULE],
      ['6', 'upserv', 'upserv.service', 'build-1'],
    )
    const journal = await shell('journalctl -u upserv -o json')
    assert.ok(!journal.includes((await machine.succeeds('upserv', ['token'])).trim()))
    assert.doesNotMatch(journal, /\\u001b/)
    assert.match(
      await shell('curl -sSf http://127.0.0.1:8730/metrics'),
      /^process_resident_memory_bytes [1-9]/m,
    )
    await shell('curl -sSf http://127.0.0.1:8730/builds/1.tar.zst | zstd -dq | tar -t')
    // Root's commands work while the server runs, and leave nothing that is root's while it does not.
    await machine.succeeds('upserv', ['pin', '1'])
    await shell(
      'upserv export 1 /root/by-server && upserv import - --as 1-again </root/by-server && upserv remove 1-again',
    )
    await shell('systemctl stop upserv.service upserv.socket')
    assert.match(await machine.succeeds('upserv', ['list']), /^1 .*sticky/m)
    await machine.succeeds('upserv', ['unpin', '1'])
    assert.match(
      (await machine.run('upserv', ['export', '1', '/root/alone'])).stderr,
      /upserv export 1 - >FILE/,
    )
    await shell(
      'upserv export 1 - >/root/alone && cmp /root/alone /root/by-server && rm /root/alone /root/by-server',
    )
    assert.equal(
      await shell('find /var/lib/upserv ! -user upserv; find /tmp /var/lib/upserv -name "*pipe-*"'),
      '',
    )
    await shell('systemctl start upserv.socket')
    assert.equal(await property('ActiveState'), 'inactive')
    // Socket activation: the client starts the server.
    await sync('1')
    assert.equal(await property('ActiveState'), 'active')
  })

  test('over TLS, as docs/operations.md has it: certificate, [tls], and a socket that is off until then', async () => {
    assert.match(await shell('systemctl is-enabled upserv-tls.socket || true'), /^disabled$/m)
    const section = sectionOf('docs/operations.md', 'TLS')
    const [directory, ownCertificate, hook, byHand, socket] = indentedIn(section) as [
      string,
      string,
      string,
      string,
      string,
    ]
    assert.match(socket, /^systemctl enable/)
    const [, table] = /^```toml\n([\s\S]*?)^```$/m.exec(section)!
    await shell(`cp /etc/upserv/upserv.toml /root/before.toml && cd /root
echo 127.0.0.1 updates.example.org >>/etc/hosts
${directory}${ownCertificate}`)
    // What certbot has got: this certificate again, and one for another program on this machine.
    await shell(`live=/etc/letsencrypt/live hook=/etc/letsencrypt/renewal-hooks/deploy/upserv
mkdir -p $live/updates.example.org $live/www.example.org \${hook%/*}
cp /root/cert.pem $live/updates.example.org/fullchain.pem && cp /root/key.pem $live/updates.example.org/privkey.pem
cat >$hook <<'EOF'
${hook}EOF
chmod 755 $hook
rm /etc/upserv/tls/*
RENEWED_LINEAGE=$live/www.example.org $hook
test ! -e /etc/upserv/tls/cert.pem
${byHand}rm -r /etc/letsencrypt`)
    const said = await shell(`printf '\n%s' '${table}' >>/etc/upserv/upserv.toml
${socket}
RSYNC_SSL_CA_CERT=/root/ca.pem rsync-ssl rsync://updates.example.org/`)
    assert.match(said, /^builds/m)
    assert.match(said, /^ok +certificate +\S+ is for DNS:updates\.example\.org/m)
    assert.match(said, /^ok +rsync over TLS port 874 /m)
    assert.match(await property('StatusText'), /^serving rsync:\/\/\[::\]:873 rsync-ssl:\/\/\[::\]:874$/)
    // The socket is systemd's, so without a certificate nobody could take it over: the one who has a certificate goes on.
    await shell('mv /etc/upserv/upserv.toml /root/tls.toml && cp /root/before.toml /etc/upserv/upserv.toml')
    const refused = await machine.run('upserv', ['handover'])
    assert.equal(refused.code, 75)
    assert.match(refused.stderr, /no certificate to show[\s\S]*systemctl disable --now upserv-tls\.socket/)
    await shell(
      'RSYNC_SSL_CA_CERT=/root/ca.pem rsync-ssl rsync://updates.example.org/ && mv /root/tls.toml /etc/upserv/',
    )
    await shell(`mv /root/before.toml /etc/upserv/upserv.toml && systemctl disable --now upserv-tls.socket 2>&1
systemctl restart upserv.service`)
    assert.match(await property('StatusText'), /^serving rsync:\/\/\[::\]:873$/)
  })

  test('data elsewhere, and a file below /root, as docs/operations.md has it', async () => {
    const row = /^\| keep data elsewhere \| (.*) \|$/m.exec(read('docs/operations.md'))![1]!
    const [install, dataDir, , service, paths, restart] = [...row.matchAll(/`([^`]+)`/g)].map(
      ([, typed]) => typed,
    )
    await shell(`cp /etc/upserv/upserv.toml /root/good && ${install}
sed -i 's|^data_dir .*|${dataDir}|' /etc/upserv/upserv.toml
mkdir /etc/systemd/system/upserv.service.d
printf '%s\n' '${service}' '${paths}' >/etc/systemd/system/upserv.service.d/override.conf
systemctl daemon-reload && ${restart}`)
    await sync('1')
    assert.match(await shell('ls /srv/upserv/builds'), /^1$/m)
    await shell('cp /shared/upstream/2.tar.xz /root/2.tar.xz')
    const { stderr } = await machine.run('upserv', ['import', '/root/2.tar.xz', '--as', '2'])
    assert.match(stderr, /upserv import - --as 2 <\/root\/2\.tar\.xz/)
    assert.match(read('docs/operations.md'), /`upserv import - --as ID <FILE`/)
    await shell('upserv import - --as 2 </root/2.tar.xz')
    await sync('2')
    await shell(`mv /root/good /etc/upserv/upserv.toml && rm -r /etc/systemd/system/upserv.service.d
systemctl daemon-reload && systemctl restart upserv && rm -r /srv/upserv /root/2.tar.xz`)
    await sync('1')
  })

  test('a configuration that is wrong makes the reload fail, and the old one holds', async () => {
    await shell('cp /etc/upserv/upserv.toml /root/good; echo "bugdet = 1" >/etc/upserv/upserv.toml')
    const { code } = await machine.run('systemctl', ['reload', 'upserv'])
    assert.equal(code, 1)
    assert.match(
      await shell('journalctl --no-pager -u upserv'),
      /unknown key "bugdet"; did you mean "budget"\?/,
    )
    await sync('1')
    // A restart does not get it running, and does not try for ever; a right one does.
    assert.equal((await machine.run('systemctl', ['restart', 'upserv'])).code, 1)
    assert.equal(await property('ExecMainStatus'), '78')
    await shell('cp /root/good /etc/upserv/upserv.toml; systemctl restart upserv')
    await sync('1')
  })

  test('it runs without privileges, behind every door that systemd can shut', async () => {
    const pid = await property('MainPID')
    const status = await shell(`cat /proc/${pid}/status`)
    assert.match(status, /^CapEff:\s0+$/m)
    assert.match(status, /^CapBnd:\s0+$/m)
    assert.match(status, /^NoNewPrivs:\s1$/m)
    assert.match(status, /^Seccomp:\s2$/m)
    assert.doesNotMatch(status, /^Uid:\s0/m)
    // What unpacks its builds, xz among others, is sealed in behind these doors.
    assert.match(await shell('journalctl --no-pager -o cat -u upserv'), /are confined programs=sealed$/m)
    const analysis = await machine.succeeds('systemd-analyze', ['security', '--no-pager', 'upserv.service'])
    const [, exposure] = /Overall exposure level for upserv\.service: ([\d.]+) OK/.exec(analysis) ?? []
    assert.ok(Number(exposure) <= EXPOSURE, analysis)
    const units = ['upserv.socket', 'upserv-tls.socket', 'upserv.service']
    const verified = await machine.run('systemd-analyze', ['verify', ...units])
    assert.deepEqual([verified.code, verified.stdout + verified.stderr], [0, ''])
  })

  test('a server that hangs is restarted by the watchdog', async () => {
    await shell(`mkdir /etc/systemd/system/upserv.service.d
printf '[Service]\\nWatchdogSec=2\\nInaccessiblePaths=/usr/bin/perl\\n' >/etc/systemd/system/upserv.service.d/test.conf
systemctl daemon-reload; systemctl restart upserv; kill -STOP $(systemctl show --value -p MainPID upserv)`)
    await until('it is restarted', async () => (await property('NRestarts')) === '1')
    assert.match(await shell('journalctl --no-pager -u upserv'), /Watchdog timeout/)
    await sync('1')
    // And where there is no perl to hand entries with fields to the journal, it gets lines.
    const pid = await property('MainPID')
    await until('the session is in the log', async () =>
      / session ended .*build=1 .*outcome=done/.test(await shell(`journalctl --no-pager _PID=${pid}`)),
    )
    await shell(
      'rm -r /etc/systemd/system/upserv.service.d; systemctl daemon-reload; systemctl restart upserv',
    )
  })

  test('an upgrade while a client syncs: it finishes, nobody is refused, nothing is lost', async () => {
    await sync('2')
    // Were it stopped, the server would cut this client off: it takes about ten seconds.
    await shell(
      `sed -i 's/^#* *shutdown_timeout.*/shutdown_timeout = 1/' /etc/upserv/upserv.toml; systemctl reload upserv`,
    )
    const slow = sync('2', '--bwlimit=250k')
    const place = places
    await until(
      'the client has begun',
      async () => (await machine.run('test', ['-e', `/shared/clients/${place}/file-1`])).code === 0,
    )
    const old = await property('MainPID')
    const restarts = await property('NRestarts')
    let over = false
    const upgraded = machine
      .succeeds('dpkg', ['--install', `/shared/${basename(next)}`], { timeoutMs: PATIENCE_MS })
      .finally(() => {
        over = true
      })
    while (!over) await sync('1')
    const said = await upgraded
    await sync('1')
    assert.match(said, new RegExp(`Unpacking upserv \\(${NEXT_VERSION}\\) over`))
    assert.doesNotMatch(said, /What comes next/)
    const taken = await property('MainPID')
    assert.notEqual(taken, old)
    await slow
    await until(
      'the old process has ended',
      async () => (await machine.run('test', ['-e', `/proc/${old}`])).code !== 0,
    )
    assert.equal(await property('NRestarts'), restarts)
    assert.deepEqual([await property('MainPID'), await property('ActiveState')], [taken, 'active'])
    const { version, builds } = JSON.parse(await machine.succeeds('upserv', ['status', '--json'])) as {
      version: string
      builds: number
    }
    assert.deepEqual({ version, builds }, { version: NEXT_VERSION, builds: 2 })
    assert.match(await shell('cat /etc/upserv/upserv.toml'), /name = "stick"/)
    await sync('1')
    assert.equal(await property('Result'), 'success')
    // It is systemd's own from now on, which restarts it when it dies.
    await shell(`kill -KILL ${taken}`)
    await until('it is restarted', async () => Number(await property('NRestarts')) === Number(restarts) + 1)
    await sync('1')
  })

  test('an upgrade that the configuration keeps from taking over: the version before serves on, and it is said', async () => {
    const before = await property('MainPID')
    await shell('cp /etc/upserv/upserv.toml /root/good; echo "bugdet = 1" >>/etc/upserv/upserv.toml')
    const { code, stderr } = await machine.run('dpkg', ['--install', `/shared/${basename(next)}`], {
      timeoutMs: PATIENCE_MS,
    })
    assert.equal(code, 0, stderr)
    assert.match(stderr, /99\.0\.0 serves on[\s\S]*unknown key "\S*bugdet"[\s\S]*type: upserv handover/)
    assert.deepEqual([await property('MainPID'), await property('ActiveState')], [before, 'active'])
    await sync('1')
    await shell('cp /root/good /etc/upserv/upserv.toml && upserv handover')
    assert.notEqual(await property('MainPID'), before)
    await sync('1')
    const audit = await machine.succeeds('upserv', ['history', '--audit'])
    assert.match(audit, /handOver .*done[\s\S]*handOver .*failed/)
  })

  test('under xinetd, with the file that is shipped', { skip: skipXinetd }, async () => {
    await shell(`systemctl disable --now upserv.socket upserv.service
sed -i 's/disable .*= yes/disable = no/' /etc/xinetd.d/upserv
rm -f /etc/xinetd.d/rsync
systemctl restart xinetd`)
    await until('xinetd listens', async () => (await machine.run('rsync', ['rsync://127.0.0.1/'])).code === 0)
    await Promise.all(Array.from({ length: CLIENTS }, (_, i) => sync(i % 2 === 0 ? '1' : '2')))
    // One owner for all of them, as upserv's user.
    // Those that found another one at their start end at once, so it is waited for.
    await until('there is one owner', async () => {
      const { stdout } = await machine.run('pgrep', ['-c', '-u', 'upserv', '-f', 'upserv.js serve'])
      return stdout.trim() === '1'
    })
    // The owner is left running, which nobody but the package can end.
    await shell(`systemctl stop xinetd
sed -i 's/disable = no/disable         = yes/' /etc/xinetd.d/upserv
systemctl enable upserv.socket upserv.service`)
  })

  test('remove keeps data and configuration, and no socket', async () => {
    await shell('systemctl stop upserv.service && systemctl start upserv-tls.socket')
    assert.equal(await property('ActiveState', 'upserv-tls.socket'), 'active')
    const said = await machine.run('dpkg', ['--remove', 'upserv'], { timeoutMs: PATIENCE_MS })
    assert.equal(said.code, 0, said.stderr)
    assert.doesNotMatch(said.stdout + said.stderr, /can still be activated/)
    assert.equal((await machine.run('systemctl', ['is-active', 'upserv.socket'])).code === 0, false)
    assert.equal((await machine.run('pgrep', ['-u', 'upserv'])).stdout, '')
    assert.equal((await machine.run('rsync', ['rsync://127.0.0.1/'])).code, 10)
    assert.equal(await property('ActiveState', 'upserv-tls.socket'), 'inactive')
    await shell(
      'test -s /var/lib/upserv/builds/1/manifest; grep -q stick /etc/upserv/upserv.toml; test ! -e /usr/lib/upserv',
    )
    // And again: all is there.
    await machine.succeeds('dpkg', ['--install', `/shared/${basename(next)}`], { timeoutMs: PATIENCE_MS })
    await sync('2')
  })

  test('every command of docs/updating-devices.md, as it is typed', async () => {
    // Of another time: of equal files with one time for all, rsync without -c would take the old ones for the new.
    await shell(`mkdir /root/801 && tar -C /root/801 -xf /shared/upstream/1.tar.xz
find /root/801 -exec touch --no-dereference --date=2020-01-01 {} +
tar -C /root/801 -cJf /shared/upstream/801.tar.xz . && rm -r /root/801
cp /shared/upstream/2.tar.xz /shared/upstream/802.tar.xz`)
    await machine.succeeds('dpkg', ['--install', `/shared/${basename(update)}`], { timeoutMs: PATIENCE_MS })
    await shell(`printf '[channels]\\nstable = "802"\\n' >>/etc/upserv/upserv.toml; systemctl reload upserv
echo 127.0.0.1 SERVER updates.example.org >>/etc/hosts
upserv-update --dir /versions rsync://updates.example.org 801`)
    const [script, ...recipes] = indentedIn(read('docs/updating-devices.md'))
    assert.equal(recipes.length, 4)
    const current = (): Promise<string> => shell('basename $(readlink /versions/current)')
    for (const [i, line] of script!.trimEnd().split('\n').entries()) {
      await machine.succeeds('sh', ['-ec', line], { timeoutMs: PATIENCE_MS })
      assert.equal(await current(), ['802\n', '801\n', '801\n'][i], line)
    }
    // What that has left of 802 would make the recipes too easy; what a power cut leaves is in their way.
    await shell('rm -rf /versions/builds/802 && ln -s builds/801 /versions/current.new')
    let said = ''
    for (const recipe of recipes)
      said += await machine.succeeds('sh', ['-ec', recipe], { timeoutMs: PATIENCE_MS })
    assert.match(said, /^802$/m)
    assert.equal(await current(), '802\n')
    await shell('cp -a /versions/current/root /shared/clients/by-hand')
    assertSameTree(snapshot(shared('clients', 'by-hand')), trees.get('2')!)
    await machine.succeeds('dpkg', ['--purge', 'upserv-update'], { timeoutMs: PATIENCE_MS })
  })

  test('every command of docs/migrating.md, as it is typed', async () => {
    // The three servers that one may come from, as they were; the first has the port.
    await shell(`mkdir -p /srv/703 /srv/olpc/builds/650/root /srv/olpc/builds/651/root
mkdir -p /library/xs-rsync/xobuilds-packed /media/stick/xs-xobuilds
tar -C /srv/703 -xf /shared/upstream/1.tar.xz
tar -C /srv/olpc/builds/650/root -xf /shared/upstream/1.tar.xz
tar -C /srv/olpc/builds/651/root -xf /shared/upstream/2.tar.xz
touch /srv/olpc/builds/651/sticky
cd /library/xs-rsync/xobuilds-packed
tar -C /srv/703 -cjf 767-tree.tar.bz2 . && md5sum 767-tree.tar.bz2 >767-tree.tar.bz2.md5
echo "contents of 767" >767.contents
cd /media/stick/xs-xobuilds
tar -C /srv/olpc/builds/651/root -cjf os768-tree.tar.bz2 . && md5sum os768-tree.tar.bz2 >os768-tree.tar.bz2.md5
echo 768 >os768.name && sha1sum os768* >manifest.sha1
printf 'fleet:sesame\\n' >/etc/rsyncd.secrets && chmod 600 /etc/rsyncd.secrets
printf '[spring]\\npath = /srv/703\\nuid = root\\nauth users = fleet\\nsecrets file = /etc/rsyncd.secrets\\n' >/etc/rsyncd.conf
systemctl stop upserv.socket upserv.service && systemctl enable --now rsync 2>&1`)
    const comes = async (module: string, id: string, user = ''): Promise<void> => {
      const place = `from-${module.replaceAll('/', '-')}`
      const url = `rsync://${user}127.0.0.1/${module}/`
      await shell(`RSYNC_PASSWORD=sesame rsync -aH ${url} /shared/clients/${place}/`)
      assertSameTree(snapshot(shared('clients', place)), trees.get(id)!)
    }
    await until('the stock daemon listens', async () =>
      /^spring/m.test((await machine.run('rsync', ['rsync://127.0.0.1/'])).stdout),
    )
    await comes('spring', '1', 'fleet@')
    const blocks = commandsOf('docs/migrating.md')
    assert.equal(blocks.length, 4)
    for (const block of blocks) await machine.succeeds('sh', ['-ec', block], { timeoutMs: PATIENCE_MS })
    await comes('build-703/root', '1', 'fleet@')
    assert.equal((await machine.run('rsync', ['rsync://127.0.0.1/build-703/root/'])).code, 5)
    assert.match(await shell('rsync rsync://127.0.0.1/'), /^build-703 +\tthe spring release$/m)
    await comes('build-650/root', '1')
    await comes('build-651/root', '2')
    await comes('build-767/root', '1')
    await comes('build-768/root', '2')
    await shell(
      'rsync rsync://127.0.0.1/build-767/contents /root/ && grep -x "contents of 767" /root/contents',
    )
    assert.match(await machine.succeeds('upserv', ['list']), /^651 .*sticky/m)
    await shell('rm -r /srv/703 /srv/olpc /library /media/stick /etc/rsyncd.conf /etc/rsyncd.secrets')
  })

  test('purge asks nothing and leaves nothing, also of a disk that is mounted for the builds', async () => {
    await shell(`systemctl stop upserv.socket upserv.service
mkdir /mnt/disk && cp -a /var/lib/upserv/. /mnt/disk/ && rm -r /var/lib/upserv && mkdir /var/lib/upserv
mount --bind /mnt/disk /var/lib/upserv && test -d /var/lib/upserv/builds`)
    await machine.succeeds('dpkg', ['--purge', 'upserv'], { timeoutMs: PATIENCE_MS })
    assert.equal(await shell('ls -A /mnt/disk'), '')
    await shell('umount /var/lib/upserv && rmdir /var/lib/upserv')
    const left = await shell(
      "find /etc /usr /var /run /opt /srv /root -xdev -iname '*upserv*' ! -path '/var/log/journal/*' ! -path '/var/cache/man/*' ! -path '/root/good' ! -path '*/node_modules/*' | grep -v -e ^/usr/share/vim -e '^/usr/src' || true",
    )
    assert.equal(left, '')
    assert.equal((await machine.run('getent', ['passwd', 'upserv'])).code, 2)
    assert.equal((await machine.run('getent', ['group', 'upserv'])).code, 2)
    assert.equal(
      await shell('systemctl list-units --all --no-legend "upserv*" | grep -v "not-found" || true'),
      '',
    )
  })

  test('every command of docs/quick-start.md and README.md, as it is typed', async () => {
    const home = shared('quick')
    mkdirSync(home, { mode: 0o755 })
    for (const path of [deb, update]) copyFileSync(path, join(home, basename(path)))
    const quick = commandsOf('docs/quick-start.md')
    assert.ok(quick.length >= 6)
    let said = ''
    for (const block of quick) {
      said += await machine.succeeds('sh', ['-ec', `cd /shared/quick\n${block}`], { timeoutMs: PATIENCE_MS })
    }
    assert.match(said, /^the second one\n[\s\S]*^the second one\n/m, 'the device is not at build 2')
    assert.match(said, /^build-2/m)
    // What is in README beside these: CI runs the scripts, and the server is started here.
    const serve = commandsOf('README.md').find((block) => block.includes('bin/upserv serve'))!
    // Beside the package's own, as nothing says to stop that.
    const script = `systemctl is-active upserv.socket upserv.service
cd /checkout
${serve.trim()} >/tmp/serve 2>&1 &
until rsync rsync://127.0.0.1:8873/ 2>/dev/null; do kill -0 $! || { cat /tmp/serve; exit 1; }; sleep 0.1; done
kill $!; wait $!`
    await machine.succeeds('sh', ['-ec', script], { timeoutMs: PATIENCE_MS })
    const ofScripts =
      /^(?:script\/(?:server|test|package)$|script\/(?:server|test) |apt-get install -y npm debhelper$)/
    const others = commandsOf('README.md').filter(
      (block) => block !== serve && !quick.some((one) => one.includes(block)),
    )
    for (const line of others.flatMap((block) => block.trim().split('\n'))) {
      assert.ok(
        ofScripts.test(line) ||
          quick.join('').includes(line.replace('./tmp/package/', './')) ||
          line.startsWith(DEVICE),
        `nobody tries: ${line}`,
      )
    }
    await machine.succeeds('dpkg', ['--purge', 'upserv', 'upserv-update'], { timeoutMs: PATIENCE_MS })
    await shell('test ! -e /var/lib/upserv && test ! -e /etc/upserv')
  })
})

/** What a device types, which the tests above do with their own builds. */
const DEVICE = 'rsync -aHAX --numeric-ids --delete rsync://SERVER:8873/build-802/root/'

const read = (page: string): string => readFileSync(join(ROOT, page), 'utf8')

/** The shell blocks of a page. */
function commandsOf(page: string): string[] {
  return [...read(page).matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block!)
}

/** A section of a page, without its heading. */
function sectionOf(page: string, heading: string): string {
  const [, section = ''] = read(page).split(`\n## ${heading}\n`)
  return section.split('\n## ')[0]!
}

/** What a text has to be typed where it is set in by four spaces, a block after the other. */
function indentedIn(text: string): string[] {
  return [...text.matchAll(/(?<=\n\n)(?: {4}.*\n)+/g)].map(([block]) => block.replaceAll(/^ {4}/gm, ''))
}
