/**
 * Entries with fields for systemd's journal, by its native protocol: a datagram to a Unix socket, which Node cannot
 * send. A perl of a few lines does (perl-base is on every Debian), one process for as long as we live: entries go to
 * it through a pipe, and each goes on as one datagram. It outlives us by what is in the pipe. systemd-cat knows of no
 * fields, and logger(1) would be a process for each entry.
 *
 * When there is no such program, when it ends, or when it is slow, a line on stderr, which the journal reads as well,
 * stands for the entry. What is lost is what a process that was killed had in its pipe.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'

const SOCKET = '/run/systemd/journal/socket'
/** What may wait in memory for a journal that is slow. */
const MAX_WAITING = 2 ** 20
/** A value that is longer is cut: an entry must fit into a datagram. */
const MAX_VALUE = 16 * 1024
/** Characters, of up to four bytes each: the system's limit is some 200 KB. */
const MAX_ENTRY = 32 * 1024
/** What is left in the pipe goes on within this time when we end. */
const END_MS = 2000

/** Entries end with an empty line. A journal that restarts is waited for; one that is gone gets lines on stderr. */
const SENDER = `use Socket; $/ = "\\n\\n"; $SIG{$_} = "IGNORE" for qw(INT TERM HUP PIPE);
socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or exit 1; my $to = sockaddr_un($ARGV[0]);
while (my $e = <STDIN>) { chop $e; my $sent; for (1 .. 50) { last if $sent = send($s, $e, 0, $to); select undef, undef, undef, 0.1 }
print STDERR $e =~ /^MESSAGE=(.*)$/m, "\\n" unless $sent }`

export interface JournalEntry {
  /** Syslog's: 3 error, 4 warning, 6 information, 7 debug. */
  priority: number
  message: string
  /** By their names in the journal: capitals, digits and underscores. */
  fields: readonly (readonly [name: string, value: string])[]
}

export class Journal {
  readonly #sender: ChildProcess
  #works = true

  private constructor(sender: ChildProcess) {
    this.#sender = sender
    const fail = (): void => {
      this.#works = false
    }
    sender.once('error', fail)
    sender.once('exit', fail)
    sender.stdin!.on('error', fail)
    // It ends when we do.
    sender.unref()
    ;(sender.stdin as unknown as { unref(): void }).unref()
  }

  /** Undefined where there is no journal. */
  static open(socket = SOCKET): Journal | undefined {
    if (!existsSync(socket)) return undefined
    return new Journal(spawn('perl', ['-e', SENDER, socket], { stdio: ['pipe', 'ignore', 'inherit'] }))
  }

  /** @param otherwise called when the entry can't go, maybe later. */
  write(entry: JournalEntry, otherwise: () => void): void {
    const { stdin } = this.#sender
    if (!this.#works || !stdin!.writable || stdin!.writableLength > MAX_WAITING) otherwise()
    else stdin!.write(encodeEntry(entry), (error) => error && otherwise())
  }

  /** Resolves when all entries have gone to the journal, or take too long. */
  async close(): Promise<void> {
    if (!this.#works) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, END_MS)
    this.#sender.once('exit', () => resolve())
    this.#sender.stdin!.end()
    await promise
    clearTimeout(timer)
    this.#works = false
  }
}

/** An entry and the empty line behind it. No value holds a line feed, so none needs the protocol's other form. */
export function encodeEntry({ priority, message, fields }: JournalEntry): string {
  let text = `PRIORITY=${priority}\nMESSAGE=${plain(message)}\n`
  for (const [name, value] of fields) {
    const line = `${name}=${plain(value)}\n`
    if (text.length + line.length <= MAX_ENTRY) text += line
  }
  return `${text}\n`
}

/** What comes from outside must neither begin a field of its own nor drive the terminal that shows it. */
function plain(value: string): string {
  return value.slice(0, MAX_VALUE).replaceAll(/[\x00-\x08\x0a-\x1f\x7f-\x9f]/g, '?')
}

/** "sessionId" is SESSION_ID behind the prefix; undefined for what can't be the name of a field. */
export function fieldName(prefix: string, key: string): string | undefined {
  const name = `${prefix}${key.replaceAll(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
  return /^[A-Z][A-Z0-9_]{0,63}$/.test(name) ? name : undefined
}
