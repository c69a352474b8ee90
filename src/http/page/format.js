/** Sizes, times and shares as people read them, in the language of the page. */
import { currentLanguage, t } from './texts.js'

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']

/** "16 GB", "1.4 GB": three figures, decimal units, as on the command line. */
export function size(bytes) {
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000
    unit++
  }
  return `${number(value, unit === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2)} ${UNITS[unit]}`
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(currentLanguage(), { maximumFractionDigits: digits }).format(value)
}

export function percent(share) {
  return new Intl.NumberFormat(currentLanguage(), {
    style: 'percent',
    maximumFractionDigits: share < 0.1 || share > 0.99 ? 1 : 0,
  }).format(share)
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${whole} s`
  const minutes = Math.floor(whole / 60)
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`
  return t('days', { count: Math.round(hours / 24) })
}

/** "2 hours ago". */
export function ago(iso, now) {
  const seconds = (Date.parse(iso) - now) / 1000
  const format = new Intl.RelativeTimeFormat(currentLanguage(), { numeric: 'auto' })
  for (const [unit, length] of [
    ['day', 86_400],
    ['hour', 3600],
    ['minute', 60],
  ])
    if (Math.abs(seconds) >= length) return format.format(Math.round(seconds / length), unit)
  return t('justNow')
}

export function clock(time) {
  return new Intl.DateTimeFormat(currentLanguage(), {
    hour: '2-digit',
    minute: '2-digit',
    hour12: false,
  }).format(time)
}

export function dateTime(iso) {
  return new Intl.DateTimeFormat(currentLanguage(), { dateStyle: 'medium', timeStyle: 'short' }).format(
    new Date(iso),
  )
}
