package pricing

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// when is the condition under which a price, a factor or a contract holds. The
// zero value always holds, for the standard tier.
type when struct {
	tiers   []string // served service tiers, lower case; empty: the standard one
	regions []string // served regions, lower case; a trailing * stands for any rest; empty: any
	from    int64    // Unix seconds, inclusive; 0: since ever
	until   int64    // Unix seconds, exclusive; 0: for ever
	clock   *clock   // nil: at any time of the day
	volume  uint64   // holds over this month's stated volume in tokens; 0: from the first
}

// clock is a part of the day or week in a time zone.
type clock struct {
	zone       *time.Location
	start, end int // minutes of the day; start > end wraps over midnight; equal: all day
	days       uint8
	holidays   map[string]bool // dates of zone, 2006-01-02
}

// Days of clock.days. A holiday is no weekday.
const (
	onHolidays uint8 = 1 << 7
	everyDay   uint8 = 1<<7 - 1 | onHolidays
)

var dayNames = map[string]uint8{
	"sun": 1 << 0, "mon": 1 << 1, "tue": 1 << 2, "wed": 1 << 3, "thu": 1 << 4, "fri": 1 << 5, "sat": 1 << 6,
	"weekday": 0b0111110, "weekend": 0b1000001, "holiday": onHolidays,
}

func (c *clock) holds(at time.Time) bool {
	at = at.In(c.zone)
	day := uint8(1) << at.Weekday()
	minute := at.Hour()*60 + at.Minute()
	if len(c.holidays) > 0 && c.holidays[at.Format(time.DateOnly)] {
		day = onHolidays
	}
	if c.days&day == 0 {
		return false
	}
	switch {
	case c.start == c.end:
		return true
	case c.start < c.end:
		return minute >= c.start && minute < c.end
	}
	return minute >= c.start || minute < c.end
}

// moment is a query's place in all dimensions of when.
type moment struct {
	at     time.Time
	unix   int64
	tier   string // "" is the standard tier
	region string
	volume uint64 // tokens this month as the config states
}

func (w *when) tierHolds(tier string) bool {
	if len(w.tiers) == 0 {
		return tier == ""
	}
	return slices.Contains(w.tiers, tier)
}

func (w *when) restHolds(m *moment) bool {
	return w.timeHolds(m) && w.regionHolds(m.region) && (w.volume == 0 || m.volume > w.volume)
}

func (w *when) timeHolds(m *moment) bool {
	return m.unix >= w.from && (w.until == 0 || m.unix < w.until) && (w.clock == nil || w.clock.holds(m.at))
}

func (w *when) regionHolds(region string) bool {
	if len(w.regions) == 0 {
		return true
	}
	for _, r := range w.regions {
		if prefix, ok := strings.CutSuffix(r, "*"); ok && strings.HasPrefix(region, prefix) || r == region {
			return true
		}
	}
	return false
}

// parseInstant reads a date (its first moment in UTC) or an RFC 3339 time.
func parseInstant(s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%q: want a date (2026-01-31) or a time (2026-01-31T16:30:00Z)", clip(s))
	}
	return t, nil
}

// parseHours reads "00:30-16:30" in minutes of the day; 24:00 is its end.
func parseHours(s string) (start, end int, err error) {
	a, b, ok := strings.Cut(s, "-")
	if ok {
		start, ok = parseMinute(a)
	}
	if ok {
		end, ok = parseMinute(b)
	}
	if !ok || start == 24*60 || start == end {
		return 0, 0, fmt.Errorf("%q: want hours as 00:30-16:30", clip(s))
	}
	return start, end, nil
}

func parseMinute(s string) (int, bool) {
	if len(s) != 5 || !looksLike(s, "dd:dd") {
		return 0, false
	}
	h, m := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	return h*60 + m, m < 60 && (h < 24 || h == 24 && m == 0)
}
