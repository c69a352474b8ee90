/** Small questions about URLs that the sources ask. Pure. */

/** The scheme of a URL or URL template, in lower case and without its colon; '' when it has none. */
export function schemeOf(url: string): string {
  return /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1]?.toLowerCase() ?? ''
}

/** A URL as people may see it: without user, password, query and fragment, all of which can hold secrets. */
export function showUrl(url: URL): string {
  const shown = withoutUser(url)
  const hadQuery = shown.search !== ''
  shown.search = ''
  shown.hash = ''
  return hadQuery ? `${shown.href}?...` : shown.href
}

/** The same URL without user and password. */
export function withoutUser(url: URL): URL {
  const bare = new URL(url)
  bare.username = ''
  bare.password = ''
  return bare
}

/** The URL of a file beside this one: `.../os802.tar` and `.md5` give `.../os802.tar.md5`, query kept. */
export function withSuffix(url: URL, suffix: string): URL {
  const beside = new URL(url)
  beside.pathname += suffix
  return beside
}

/** As a file system has a part of a path. What can't be decoded stays as it is: a % may stand for itself. */
export function decodePart(text: string): string {
  return text.replaceAll(/(?:%[0-9a-f]{2})+/gi, (escapes) => {
    try {
      return decodeURIComponent(escapes)
    } catch {
      return escapes
    }
  })
}

/** The last component of the path, decoded where that is possible. */
export function fileNameOf(url: URL): string {
  return decodePart(url.pathname.slice(url.pathname.lastIndexOf('/') + 1))
}

/**
 * Where a file that lies beside an archive is beside the same archive in another place; undefined when it lies
 * elsewhere.
 */
export function besideIn(place: URL, archive: URL, file: URL): URL | undefined {
  const [here, there] = [new URL('.', archive), new URL('.', place)]
  if (file.origin !== here.origin || file.search !== archive.search) return undefined
  if (!file.pathname.startsWith(here.pathname)) return undefined
  const rest = file.pathname.slice(here.pathname.length)
  const [own, theirs] = [archive, place].map(({ pathname }) => pathname.slice(pathname.lastIndexOf('/') + 1))
  there.username = place.username
  there.password = place.password
  there.pathname += rest.startsWith(own!) ? theirs! + rest.slice(own!.length) : rest
  there.search = place.search
  return there
}

/** A template of a URL for messages: without user and password. */
export function showTemplate(template: string): string {
  return template.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/?#]*@/i, '$1')
}
