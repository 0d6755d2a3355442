package shell

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// lines calls do with each line, without its end; do stops it by returning false.
func lines(r io.Reader, do func(string) bool) error {
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadString('\n')
		if line != "" && !do(strings.TrimSuffix(line, "\n")) {
			return nil
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// oldCount turns head -5 into head -n 5.
func oldCount(args []string) []string {
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		if _, err := strconv.Atoi(args[0][1:]); err == nil {
			return append([]string{"-n", args[0][1:]}, args[1:]...)
		}
	}
	return args
}

func head(s streams, args []string) int {
	o, err := parse(oldCount(args), "q", "nc", nil)
	n := 10
	if err == nil {
		n, err = count(o, n)
	}
	if err != nil {
		return s.misuse("head", "[-n LINES | -c BYTES] [FILE…]")
	}
	return s.each("head", o.rest, func(_ string, r io.Reader) error {
		if o.set["c"] {
			_, err := io.CopyN(s.out, r, int64(n))
			if err == io.EOF {
				err = nil
			}
			return err
		}
		left := n
		if left <= 0 {
			return nil
		}
		return lines(r, func(line string) bool {
			fmt.Fprintln(s.out, line)
			left--
			return left > 0
		})
	})
}

func count(o options, fallback int) (int, error) {
	text := o.text["n"]
	if o.set["c"] {
		text = o.text["c"]
	}
	if text == "" {
		return fallback, nil
	}
	return strconv.Atoi(text)
}

func tail(s streams, args []string) int {
	o, err := parse(oldCount(args), "fFq", "n", nil)
	n, from := 10, false
	if err == nil {
		from = strings.HasPrefix(o.text["n"], "+")
		n, err = count(o, n)
	}
	if err != nil {
		return s.misuse("tail", "[-f] [-n LINES | -n +FIRST] [FILE…]")
	}
	return s.each("tail", o.rest, func(_ string, r io.Reader) error {
		var kept []string
		seen := 0
		err := lines(r, func(line string) bool {
			seen++
			switch {
			case from && seen >= n:
				fmt.Fprintln(s.out, line)
			case !from && n > 0:
				if len(kept) == n {
					kept = append(kept[:0], kept[1:]...)
				}
				kept = append(kept, line)
			}
			return true
		})
		for _, line := range kept {
			fmt.Fprintln(s.out, line)
		}
		if f, ok := r.(*os.File); err == nil && ok && (o.set["f"] || o.set["F"]) {
			return s.follow(f)
		}
		return err
	})
}

func wc(s streams, args []string) int {
	o, err := parse(args, "lwcm", "", nil)
	if err != nil {
		return s.misuse("wc", "[-lwcm] [FILE…]")
	}
	if len(o.set) == 0 {
		o.set = map[string]bool{"l": true, "w": true, "c": true}
	}
	type totals struct{ lines, words, bytes, runes int }
	show := func(t totals, name string) {
		var cols []string
		for _, c := range []struct {
			flag string
			n    int
		}{{"l", t.lines}, {"w", t.words}, {"m", t.runes}, {"c", t.bytes}} {
			if o.set[c.flag] {
				cols = append(cols, strconv.Itoa(c.n))
			}
		}
		if name != "-" {
			cols = append(cols, name)
		}
		fmt.Fprintln(s.out, strings.Join(cols, " "))
	}
	var all totals
	code := s.each("wc", o.rest, func(name string, r io.Reader) error {
		raw, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		t := totals{strings.Count(string(raw), "\n"), len(strings.Fields(string(raw))), len(raw), utf8.RuneCount(raw)}
		all = totals{all.lines + t.lines, all.words + t.words, all.bytes + t.bytes, all.runes + t.runes}
		show(t, name)
		return nil
	})
	if len(o.rest) > 1 {
		show(all, "total")
	}
	return code
}

func grep(s streams, args []string) int {
	o, err := parse(args, "ivncqElFhoHr", "e", nil)
	pattern, given := o.text["e"]
	if err == nil && !given && len(o.rest) > 0 {
		pattern, o.rest, given = o.rest[0], o.rest[1:], true
	}
	if err != nil || !given {
		return s.misuse("grep", "[-ivncqlFEoh] PATTERN [FILE…]")
	}
	switch {
	case o.set["F"]:
		pattern = regexp.QuoteMeta(pattern)
	case !o.set["E"]:
		pattern = basic(pattern)
	}
	if o.set["i"] {
		pattern = "(?i)" + pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		s.fail("grep", err)
		return 2
	}
	found := false
	code := s.each("grep", o.rest, func(name string, r io.Reader) error {
		prefix := ""
		if (len(o.rest) > 1 || o.set["H"]) && !o.set["h"] {
			prefix = name + ":"
		}
		one, err := s.grepOne(re, prefix, name, r, o)
		found = found || one
		return err
	})
	switch {
	case code != 0:
		return 2
	case found:
		return 0
	}
	return 1
}

func (s streams) grepOne(re *regexp.Regexp, prefix, name string, r io.Reader, o options) (found bool, err error) {
	number, matches := 0, 0
	err = lines(r, func(line string) bool {
		number++
		if re.MatchString(line) == o.set["v"] {
			return true
		}
		matches++
		if o.set["q"] || o.set["l"] {
			return false
		}
		if o.set["c"] {
			return true
		}
		at := prefix
		if o.set["n"] {
			at += strconv.Itoa(number) + ":"
		}
		if o.set["o"] && !o.set["v"] {
			for _, m := range re.FindAllString(line, -1) {
				fmt.Fprintln(s.out, at+m)
			}
			return true
		}
		fmt.Fprintln(s.out, at+line)
		return true
	})
	switch {
	case o.set["c"] && !o.set["q"]:
		fmt.Fprintf(s.out, "%s%d\n", prefix, matches)
	case o.set["l"] && matches > 0:
		fmt.Fprintln(s.out, name)
	}
	return matches > 0, err
}

// basic turns a POSIX basic expression into an extended one: the characters that are special with a backslash in one are so without it
// in the other.
func basic(p string) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\\' && i+1 < len(p):
			i++
			if !strings.ContainsRune("+?|(){}", rune(p[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(p[i])
		case strings.ContainsRune("+?|(){}", rune(c)):
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func sortLines(s streams, args []string) int {
	o, err := parse(args, "nrufb", "kt", nil)
	key := 0
	if err == nil && o.set["k"] {
		first, _, _ := strings.Cut(o.text["k"], ",")
		key, err = strconv.Atoi(first)
	}
	if err != nil {
		return s.misuse("sort", "[-nruf] [-k FIELD] [-t SEPARATOR] [FILE…]")
	}
	var all []string
	code := s.each("sort", o.rest, func(_ string, r io.Reader) error {
		return lines(r, func(line string) bool { all = append(all, line); return true })
	})
	compare := func(a, b string) int {
		a, b = field(a, key, o.text["t"]), field(b, key, o.text["t"])
		if o.set["f"] {
			a, b = strings.ToLower(a), strings.ToLower(b)
		}
		order := strings.Compare(a, b)
		if o.set["n"] {
			x, y := leadingNumber(a), leadingNumber(b)
			order = 0
			if x < y {
				order = -1
			} else if x > y {
				order = 1
			}
		}
		if o.set["r"] {
			return -order
		}
		return order
	}
	slices.SortStableFunc(all, compare)
	if o.set["u"] {
		all = slices.CompactFunc(all, func(a, b string) bool { return compare(a, b) == 0 })
	}
	for _, line := range all {
		fmt.Fprintln(s.out, line)
	}
	return code
}

// field is the rest of a line from the n-th field on; 0 is the whole line.
func field(line string, n int, separator string) string {
	if n == 0 {
		return line
	}
	fields := strings.Fields(line)
	if separator != "" {
		fields = strings.Split(line, separator)
	}
	if n > len(fields) {
		return ""
	}
	return strings.Join(fields[n-1:], " ")
}

func leadingNumber(text string) float64 {
	text = strings.TrimSpace(text)
	end := 0
	for end < len(text) && (text[end] >= '0' && text[end] <= '9' || text[end] == '.' || text[end] == '-' && end == 0) {
		end++
	}
	n, err := strconv.ParseFloat(text[:end], 64)
	if err != nil {
		return 0
	}
	return n
}

func uniq(s streams, args []string) int {
	o, err := parse(args, "cdu", "", nil)
	if err != nil {
		return s.misuse("uniq", "[-cdu] [FILE]")
	}
	last, n := "", 0
	flush := func() {
		if n == 0 || o.set["d"] && n < 2 || o.set["u"] && n > 1 {
			return
		}
		if o.set["c"] {
			fmt.Fprintf(s.out, "%7d %s\n", n, last)
			return
		}
		fmt.Fprintln(s.out, last)
	}
	code := s.each("uniq", o.rest, func(_ string, r io.Reader) error {
		return lines(r, func(line string) bool {
			if n > 0 && line == last {
				n++
				return true
			}
			flush()
			last, n = line, 1
			return true
		})
	})
	flush()
	return code
}
