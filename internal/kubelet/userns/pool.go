package userns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// owner of the pods' ids in /etc/subuid and /etc/subgid.
const owner = "kubelet"

// Pool is the ranges that pods can have.
type Pool struct{ parts []span }

// span is count ranges, the first of which is the number-th of the host.
type span struct{ number, count uint64 }

// Len is how many ranges there are.
func (p Pool) Len() int {
	n := 0
	for _, s := range p.parts {
		n += int(s.count)
	}
	return n
}

// at is the first id of a range.
func (p Pool) at(i int) uint32 {
	for _, s := range p.parts {
		if i < int(s.count) {
			return uint32((s.number + uint64(i)) * Length)
		}
		i -= int(s.count)
	}
	panic("no such range")
}

// subordinate is a line of /etc/subuid or /etc/subgid.
type subordinate struct {
	user         string
	first, count uint64
}

// ReadPool finds out which ranges there are: those that subuid and subgid in etc give to the user kubelet, the same in both. Where they name
// no such user: the ids of the host from 65536, below which are its own, to 2^31, above which some programs err, but for what these files give to others.
func ReadPool(etc string) (Pool, error) {
	users, err := readSubordinates(filepath.Join(etc, "subuid"))
	if err != nil {
		return Pool{}, err
	}
	groups, err := readSubordinates(filepath.Join(etc, "subgid"))
	if err != nil {
		return Pool{}, err
	}
	own := func(list []subordinate) []subordinate {
		return slices.DeleteFunc(slices.Clone(list), func(s subordinate) bool { return s.user != owner })
	}
	u, g := own(users), own(groups)
	if len(u) == 0 && len(g) == 0 {
		return Pool{parts: without(append(users, groups...))}, nil
	}
	if !slices.Equal(u, g) {
		return Pool{}, fmt.Errorf("%s and subgid must give the user %s the same ids", filepath.Join(etc, "subuid"), owner)
	}
	var p Pool
	for _, s := range u {
		if s.first%Length != 0 || s.count%Length != 0 || s.first == 0 || s.count == 0 || s.first+s.count > last*Length {
			return Pool{}, fmt.Errorf("%s: %s:%d:%d: begin and number of the kubelet's ids must be multiples of %d, from %d on and below %d",
				filepath.Join(etc, "subuid"), s.user, s.first, s.count, Length, Length, last*Length)
		}
		p.parts = append(p.parts, span{s.first / Length, s.count / Length})
	}
	slices.SortFunc(p.parts, func(a, b span) int { return int(a.number) - int(b.number) })
	for i := range p.parts[1:] {
		if p.parts[i].number+p.parts[i].count > p.parts[i+1].number {
			return Pool{}, fmt.Errorf("%s gives the user %s some ids twice", filepath.Join(etc, "subuid"), owner)
		}
	}
	return p, nil
}

const (
	last  = 1<<16 - 1 // range of the host; its last id stands for none, so that it cannot be mapped
	usual = 1 << 15   // ranges from which pods get theirs where the host doesn't say
)

// without is the usual ranges that none of these ids is in.
func without(others []subordinate) (free []span) {
	taken := make([]bool, usual)
	taken[0] = true
	for _, s := range others {
		for n := s.first / Length; n < usual && n*Length < s.first+s.count; n++ {
			taken[n] = true
		}
	}
	for n := uint64(0); n < usual; n++ {
		switch {
		case taken[n]:
		case taken[n-1]:
			free = append(free, span{n, 1})
		default:
			free[len(free)-1].count++
		}
	}
	return free
}

// readSubordinates of a file, none if there is no file. Lines that are for other users are not this program's to judge.
func readSubordinates(path string) (list []subordinate, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || strings.HasPrefix(fields[0], "#") {
			if fields[0] == owner {
				return nil, fmt.Errorf("%s: %q is not user:first:number", path, lines.Text())
			}
			continue
		}
		first, err := strconv.ParseUint(fields[1], 10, 32)
		count, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err := errors.Join(err, err2); err != nil {
			if fields[0] == owner {
				return nil, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
			}
			continue
		}
		list = append(list, subordinate{fields[0], first, count})
	}
	return list, lines.Err()
}
