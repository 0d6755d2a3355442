package cron

import (
	"strings"
	"testing"
	"time"
)

func at(t *testing.T, zone, text string) time.Time {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	got, err := time.ParseInLocation("2006-01-02 15:04:05", text, loc)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestNext(t *testing.T) {
	for _, tt := range []struct{ schedule, zone, from, want string }{
		{"* * * * *", "UTC", "2026-01-01 00:00:00", "2026-01-01 00:01:00"},
		{"* * * * *", "UTC", "2026-01-01 00:00:59", "2026-01-01 00:01:00"},
		{"*/15 * * * *", "UTC", "2026-01-01 00:16:30", "2026-01-01 00:30:00"},
		{"5/20 * * * *", "UTC", "2026-01-01 00:26:00", "2026-01-01 00:45:00"},
		{"0 9-17/4 * * mon-FRI", "UTC", "2026-01-02 17:00:00", "2026-01-05 09:00:00"},
		{"30 6 1,15 * *", "UTC", "2026-01-02 00:00:00", "2026-01-15 06:30:00"},
		{"0 0 29 2 *", "UTC", "2026-01-01 00:00:00", "2028-02-29 00:00:00"},
		{"0 0 31 * *", "UTC", "2026-01-31 00:00:00", "2026-03-31 00:00:00"},
		{"0 0 13 * fri", "UTC", "2026-01-01 00:00:00", "2026-01-02 00:00:00"}, // either day
		{"0 0 */2 * fri", "UTC", "2026-01-01 00:00:00", "2026-01-02 00:00:00"},
		{"0 0 ? * fri", "UTC", "2026-01-03 00:00:00", "2026-01-09 00:00:00"},
		{"0 12 * dec *", "UTC", "2026-01-01 00:00:00", "2026-12-01 12:00:00"},
		{"@hourly", "UTC", "2026-01-01 00:10:00", "2026-01-01 01:00:00"},
		{"@daily", "UTC", "2026-12-31 00:10:00", "2027-01-01 00:00:00"},
		{"@midnight", "UTC", "2026-01-01 00:10:00", "2026-01-02 00:00:00"},
		{"@weekly", "UTC", "2026-01-01 00:10:00", "2026-01-04 00:00:00"},
		{"@monthly", "UTC", "2026-01-01 00:10:00", "2026-02-01 00:00:00"},
		{"@yearly", "UTC", "2026-01-01 00:10:00", "2027-01-01 00:00:00"},
		{"@every 90m", "UTC", "2026-01-01 00:10:07", "2026-01-01 01:40:07"},
		{"0 8 * * *", "Asia/Kolkata", "2026-01-01 09:00:00", "2026-01-02 08:00:00"},
		{"30 2 * * *", "Europe/Berlin", "2026-03-28 03:00:00", "2026-03-30 02:30:00"}, // 2:30 on the 29th is skipped
		{"0 5 * * *", "Europe/Berlin", "2026-03-28 06:00:00", "2026-03-29 05:00:00"},
		{"0 * * * *", "America/Sao_Paulo", "2018-11-03 23:30:00", "2018-11-04 01:00:00"}, // the day has no midnight
		{"0 0 5 11 *", "America/Sao_Paulo", "2018-11-03 23:30:00", "2018-11-05 00:00:00"},
		{"15 * * * *", "Australia/Lord_Howe", "2026-04-05 01:20:00", "2026-04-05 01:45:00 half"},
	} {
		s, err := Parse(tt.schedule)
		if err != nil {
			t.Errorf("%s: %v", tt.schedule, err)
			continue
		}
		got := s.Next(at(t, tt.zone, tt.from))
		if strings.HasSuffix(tt.want, " half") { // the clock goes back by half an hour here: there is some time within the hour, and it moves on
			if got.Sub(at(t, tt.zone, tt.from)) > 2*time.Hour || got.Minute() != 15 {
				t.Errorf("%s in %s after %s: %s", tt.schedule, tt.zone, tt.from, got)
			}
			continue
		}
		if want := at(t, tt.zone, tt.want); !got.Equal(want) {
			t.Errorf("%s in %s after %s: %s, want %s", tt.schedule, tt.zone, tt.from, got, want)
		}
	}
	never, err := Parse("59 23 31 2 *")
	if err != nil || !never.Next(at(t, "UTC", "2026-01-01 00:00:00")).IsZero() {
		t.Errorf("the 31st of February: %v, %v", never, err)
	}
}

// An hour that the clock repeats is due twice.
func TestRepeatedHour(t *testing.T) {
	s, _ := Parse("30 2 * * *")
	first := s.Next(at(t, "Europe/Berlin", "2026-10-25 00:00:00"))
	second := s.Next(first)
	if second.Sub(first) != time.Hour {
		t.Errorf("%s, then %s", first, second)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *", "* * * * 7", "*/0 * * * *", "5-1 * * * *",
		"a * * * *", "1- * * * *", "-1 * * * *", "@fortnightly", "@every soon", "TZ=UTC * * * * *", "CRON_TZ=UTC * * * * *", "* * * foo *", "1,,2 * * * *",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestLastAndMissed(t *testing.T) {
	base := at(t, "UTC", "2020-01-01 00:00:07")
	for _, tt := range []struct {
		schedule, now, last string
		missed              int
	}{
		{"0 0 1 1 *", "2020-12-31 00:00:00", "", 0},
		{"0 0 1 1 *", "2026-06-01 00:00:00", "2026-01-01 00:00:00", 6},
		{"* * * * *", "2026-06-01 00:00:30", "2026-06-01 00:00:00", 101},
		{"30 6-16/4 * * 1-5", "2026-06-01 06:00:00", "2026-05-29 14:30:00", 101}, // over a weekend
		{"@every 7s", "2020-01-01 00:00:29", "2020-01-01 00:00:28", 3},
		{"@every 1h", "2026-01-01 00:00:00", "2025-12-31 23:00:07", 101},
	} {
		s, err := Parse(tt.schedule)
		if err != nil {
			t.Fatal(err)
		}
		now := at(t, "UTC", tt.now)
		want := time.Time{}
		if tt.last != "" {
			want = at(t, "UTC", tt.last)
		}
		if got := s.Last(base, now); !got.Equal(want) {
			t.Errorf("%s: last %s, want %s", tt.schedule, got, want)
		}
		if got := s.Missed(base, now, 101); got != tt.missed {
			t.Errorf("%s: missed %d, want %d", tt.schedule, got, tt.missed)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("*/5 1-3 * jan mon,fri")
	f.Add("@every 1s")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		if next := s.Next(now); !next.IsZero() && !next.After(now) {
			t.Errorf("%q: next %s", text, next)
		}
	})
}
