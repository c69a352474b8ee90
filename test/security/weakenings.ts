/**
 * Classes of faults, and how each is put into our own sources: pieces of code that stand there once, and what
 * stands in their place in a weakened copy. Where code moves on, its weakening has to come along; a piece that is
 * not found is an error, and so is a weakened copy whose test still passes. What is decided in several places is
 * weakened in each of them by itself.
 */

export type Weakening = readonly { file: string; from: string; to: string }[]

export interface Fault {
  /** The name of its test. */
  readonly name: string
  readonly weakenings: Readonly<Record<string, Weakening>>
}

export const FAULTS = {
  'CVE-2026-53791': {
    name: 'a PROXY header is not believed, whoever sends it',
    weakenings: {
      'the session reads on behind a header': [
        {
          file: 'src/rsync/session.ts',
          from: "    await this.#connection.in.decode(checkFirstByte)\n    return await this.#readLine('greeting')\n",
          to: "    const line = await this.#readLine('greeting')\n    return line.startsWith('PROXY ') ? await this.#readLine('greeting') : line\n",
        },
      ],
      'every address counts as a proxy': [
        {
          file: 'src/server.ts',
          from: '    isProxy: (address) => proxyProtocolFrom.length > 0 && proxies.admits(address),\n',
          to: '    isProxy: (address) => proxyProtocolFrom.length >= 0 || proxies.admits(address),\n',
        },
      ],
      'the doorstep asks nobody who is one': [
        {
          file: 'src/doorstep/doorstep.ts',
          from: '    return this.speaksTls || this.isProxy(peer)\n',
          to: '    return true || this.isProxy(peer)\n',
        },
        {
          file: 'src/doorstep/doorstep.ts',
          from: '    const proxied = isProxy(next.address) ? ',
          to: '    const proxied = isProxy !== undefined ? ',
        },
      ],
    },
  },
  'CVE-2026-53786': {
    name: 'what a module hides stays hidden, whatever rules a client brings',
    weakenings: {
      "a client's rules come first": [
        {
          file: 'src/rsync/session.ts',
          from: '      if (length === 0) return rules\n',
          to: '      if (length === 0) {\n        ;(globalThis as any).theirs = rules\n        return rules\n      }\n',
        },
        {
          file: 'src/rsync/hidden-tree.ts',
          from: '    for (const filters of all) {\n',
          to: '    if ((globalThis as any).theirs?.some((rule: any) => rule.include)) return true\n    for (const filters of all) {\n',
        },
      ],
    },
  },
  'CVE-2026-53792': {
    name: 'blocks of length 0 end the session',
    weakenings: {
      'the head of the sums is not checked': [
        {
          file: 'src/rsync/wire/sums.ts',
          from: '  if (count > 0 && blockLength === 0) throw ',
          to: '  if (count < 0) throw ',
        },
      ],
    },
  },
  'CVE-2026-53794': {
    name: 'a client does not move our bounds on memory',
    weakenings: {
      'an option lifts the bound': [
        {
          file: 'src/rsync/wire/arguments.ts',
          from: "    case '--sender':\n",
          to: "    case '--max-alloc':\n      ;(globalThis as any).unbounded = true\n      break\n    case '--sender':\n",
        },
        {
          file: 'src/rsync/sender.ts',
          from: ' && sumBytes(head) <= MAX_SUM_BYTES\n',
          to: ' && (sumBytes(head) <= MAX_SUM_BYTES || (globalThis as any).unbounded)\n',
        },
      ],
    },
  },
  'CVE-2026-70464': {
    name: 'a handshake that nobody finishes holds neither a turn nor a connection',
    weakenings: {
      'a turn is promised for ever': [
        {
          file: 'src/daemon/turns.ts',
          from: '    this.#timer = setTimeout(() => this.leave(), claimMs).unref()\n',
          to: '',
        },
      ],
      'the session has no deadline': [
        {
          file: 'src/rsync/session.ts',
          from: '    if ((this.inHandshake && now - this.#owedSince > handshakeMs) || waited > idleMs) {\n',
          to: '    if ((handshakeMs < 0 && this.#owedSince < 0) || waited > idleMs) {\n',
        },
      ],
      'the doorstep has no deadline': [
        { file: 'src/doorstep/doorstep.ts', from: '    }, withinMs)\n', to: '    }, withinMs * 100_000)\n' },
      ],
    },
  },
  'CVE-2026-70455': {
    name: 'a client does not choose how many threads compress for it',
    weakenings: {
      'an option sets the threads': [
        {
          file: 'src/rsync/wire/arguments.ts',
          from: "    case '--sender':\n",
          to: "    case '--compress-threads':\n      ;(globalThis as any).workers = Number(value)\n      break\n    case '--sender':\n",
        },
        {
          file: 'src/rsync/codecs.ts',
          from: '    [constants.ZSTD_c_windowLog]: ZSTD_FRAME_WINDOW_LOG,\n',
          to: '    [constants.ZSTD_c_windowLog]: ZSTD_FRAME_WINDOW_LOG,\n    [constants.ZSTD_c_nbWorkers]: Math.max(0, (globalThis as any).workers ?? 0),\n',
        },
        {
          file: 'src/rsync/codecs.ts',
          from: '    [constants.ZSTD_c_windowLog]: isQuick ? ZSTD_QUICK_WINDOW_LOG : ZSTD_WINDOW_LOG,\n',
          to: '    [constants.ZSTD_c_windowLog]: isQuick ? ZSTD_QUICK_WINDOW_LOG : ZSTD_WINDOW_LOG,\n    [constants.ZSTD_c_nbWorkers]: Math.max(0, (globalThis as any).workers ?? 0),\n',
        },
      ],
    },
  },
  'CVE-2026-70453': {
    name: 'a search costs no more than a few honest ones, whatever sums a client sends',
    weakenings: {
      'the search has no bound': [
        {
          file: 'src/rsync/delta/match.ts',
          from: '    return this.#patience < 0\n',
          to: '    return false\n',
        },
        {
          file: 'src/rsync/delta/match.ts',
          from: 'const MAX_CANDIDATES = 1024\n',
          to: 'const MAX_CANDIDATES = Number.POSITIVE_INFINITY\n',
        },
      ],
    },
  },
  'CVE-2026-70452': {
    name: 'a rule that cannot be evaluated lets nobody in',
    weakenings: {
      'no address passes all rules': [
        {
          file: 'src/access/hosts.ts',
          from: '    if (address === undefined) return false\n',
          to: '    if (address === undefined) return true\n',
        },
      ],
      'a group that nobody knows keeps nobody out': [
        {
          file: 'src/access/policy.ts',
          from: '      const meant = members ? members.some(isMeant) : !rule.admitted\n',
          to: '      const meant = members ? members.some(isMeant) : false\n',
        },
      ],
      'a table of a source that there is none of is for nothing': [
        {
          file: 'src/access/policy.ts',
          from: '(this.#supplies(this.rules.source, module) ?? true)',
          to: '(this.#supplies(this.rules.source, module) ?? false)',
        },
      ],
    },
  },
  'CVE-2026-70463': {
    name: 'a list of users means what is written, or is refused',
    weakenings: {
      'names are not looked at': [
        {
          file: 'src/access/users.ts',
          from: '  if (/[*?[\\]]/.test(name))\n    return ',
          to: "  if (name === '') return ",
        },
      ],
      'an entry that admits outdoes one that denies': [
        {
          file: 'src/access/policy.ts',
          from: '      if (!rule.admitted) return false\n',
          to: '      if (!rule.admitted) continue\n',
        },
      ],
    },
  },
  'control characters': {
    name: 'no control character of a client reaches a log or a terminal',
    weakenings: {
      'text is shown as it is': [
        {
          file: 'src/lib/bytes.ts',
          from: '  const shown = text.replace(unsafe, escapeCharacter)\n',
          to: '  const shown = text.replace(/never/, escapeCharacter)\n',
        },
      ],
    },
  },
} satisfies Record<string, Fault>
