// Package cron reads CronJob schedules and says when they are due. Pure: no clock, no zone but that of the times it is given.
//
// A schedule is five fields (minute, hour, day of month, month, day of week), or a name for one (@hourly), or "@every" and a duration. Both
// days must match, unless both are restricted: then either may. This is what the CronJob documentation and the library behind it promise.
package cron

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a zone must be known also on machines without a database of them
)

// Schedule is one that was read.
type Schedule struct {
	every                          time.Duration // of "@every"; then nothing else counts
	minute, hour, day, month, week uint64        // bit sets
	anyDay, anyWeekday             bool          // the field was not restricted
}

// field is the range of one of the five, and the names its values have.
type field struct {
	name     string
	min, max int
	names    []string // from min on
}

var fields = [5]field{
	{name: "minute", max: 59}, {name: "hour", max: 23}, {name: "day of month", min: 1, max: 31},
	{name: "month", min: 1, max: 12, names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{name: "day of week", max: 6, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

var named = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *",
	"@hourly": "0 * * * *",
}

// Parse reads a schedule. A time zone in it is refused: CronJobs have a field of their own for that.
func Parse(text string) (*Schedule, error) {
	if strings.Contains(text, "TZ=") {
		return nil, fmt.Errorf("cannot use TZ or CRON_TZ in schedule %q, use timeZone instead", text)
	}
	if every, is := strings.CutPrefix(text, "@every "); is {
		d, err := time.ParseDuration(every)
		if err != nil {
			return nil, fmt.Errorf("failed to parse duration %s: %w", text, err)
		}
		return &Schedule{every: max(d.Truncate(time.Second), time.Second)}, nil
	}
	if strings.HasPrefix(text, "@") {
		spelled, known := named[text]
		if !known {
			return nil, fmt.Errorf("unrecognized descriptor: %s", text)
		}
		text = spelled
	}
	parts := strings.Fields(text)
	if len(parts) != len(fields) {
		return nil, fmt.Errorf("expected exactly %d fields, found %d: %q", len(fields), len(parts), text)
	}
	s := &Schedule{}
	for i, set := range []*uint64{&s.minute, &s.hour, &s.day, &s.month, &s.week} {
		var err error
		if *set, err = fields[i].parse(parts[i]); err != nil {
			return nil, err
		}
	}
	s.anyDay, s.anyWeekday = open(parts[2]), open(parts[4])
	return s, nil
}

// open says whether one of a field's parts leaves it unrestricted. A step restricts.
func open(text string) bool {
	for part := range strings.SplitSeq(text, ",") {
		if base, step, stepped := strings.Cut(part, "/"); (base == "*" || base == "?") && (!stepped || step == "1") {
			return true
		}
	}
	return false
}

func (f field) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		bits, err := f.parsePart(part)
		if err != nil {
			return 0, err
		}
		set |= bits
	}
	return set, nil
}

// parsePart reads "*", "5", "1-5", each with or without "/2"; "5/2" goes on to the field's end.
func (f field) parsePart(part string) (set uint64, err error) {
	span, by, stepped := strings.Cut(part, "/")
	from, to, ranged := strings.Cut(span, "-")
	first, last, step := f.min, f.max, 1
	if span != "*" && span != "?" {
		if first, err = f.number(from); err != nil {
			return 0, err
		}
		switch {
		case ranged:
			if last, err = f.number(to); err != nil {
				return 0, err
			}
		case !stepped:
			last = first
		}
	}
	if stepped {
		if step, err = strconv.Atoi(by); err != nil || step <= 0 {
			return 0, fmt.Errorf("step of %s must be a positive number: %s", f.name, part)
		}
	}
	if first < f.min || last > f.max || first > last {
		return 0, fmt.Errorf("%s must be within %d and %d, the lower first: %s", f.name, f.min, f.max, part)
	}
	for i := first; i <= last; i += step {
		set |= 1 << i
	}
	return set, nil
}

func (f field) number(text string) (int, error) {
	for i, name := range f.names {
		if strings.EqualFold(text, name) {
			return f.min + i, nil
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number: %q", f.name, text)
	}
	return int(n), nil
}

// horizon is how far Next looks: the 29th of February may be eight years away.
const horizon = 9

// Next is the first time after t that the schedule is due, in t's zone; zero if it never is. Hours that a zone skips are skipped, those that
// it repeats are due twice.
func (s *Schedule) Next(t time.Time) time.Time {
	if s.every > 0 {
		return t.Add(s.every - time.Duration(t.Nanosecond()))
	}
	if bits.OnesCount64(s.day) == 0 {
		return time.Time{}
	}
	end := t.Year() + horizon
	t = t.Truncate(time.Second).Add(time.Minute - time.Duration(t.Second())*time.Second)
	for t.Year() <= end {
		switch {
		case s.month&(1<<t.Month()) == 0:
			t = midnight(t, t.Year(), t.Month()+1, 1)
		case !s.dayMatches(t):
			t = midnight(t, t.Year(), t.Month(), t.Day()+1)
		case s.hour&(1<<t.Hour()) == 0:
			t = t.Add(time.Hour - time.Duration(t.Minute())*time.Minute)
		case s.minute&(1<<t.Minute()) == 0:
			t = t.Add(time.Minute)
		default:
			return t
		}
	}
	return time.Time{}
}

// midnight begins a later day than t's. Where a zone has no midnight on that day, the day begins an hour later.
func midnight(t time.Time, year int, month time.Month, day int) time.Time {
	begin := time.Date(year, month, day, 0, 0, 0, 0, t.Location())
	if begin.Hour() == 23 {
		begin = begin.Add(time.Hour)
	}
	return begin
}

func (s *Schedule) dayMatches(t time.Time) bool {
	day, weekday := s.day&(1<<t.Day()) != 0, s.week&(1<<t.Weekday()) != 0
	if s.anyDay || s.anyWeekday {
		return day && weekday
	}
	return day || weekday
}

// Last is the last time after base and not after t that the schedule was due, zero if there is none. It does not walk through all of them.
func (s *Schedule) Last(base, t time.Time) time.Time {
	first := s.Next(base)
	if first.IsZero() || first.After(t) {
		return time.Time{}
	}
	if s.every > 0 {
		return first.Add(t.Sub(first) / s.every * s.every)
	}
	last := first
	for back := time.Minute; ; back *= 2 {
		from := t.Add(-back)
		if from.Before(first) {
			break
		}
		if due := s.Next(from); !due.After(t) {
			last = due
			break
		}
	}
	for due := s.Next(last); !due.IsZero() && !due.After(t); due = s.Next(due) {
		last = due
	}
	return last
}

// Missed counts the times after base and not after t that the schedule was due, up to limit.
func (s *Schedule) Missed(base, t time.Time, limit int) (n int) {
	for due := s.Next(base); n < limit && !due.IsZero() && !due.After(t); due = s.Next(due) {
		n++
	}
	return n
}
