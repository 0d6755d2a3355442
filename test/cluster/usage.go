package cluster

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Memory of a process in MB (10^6 bytes).
type Memory struct {
	Resident  float64
	Anonymous float64 // the part of it that no file backs
	File      float64 // the part that files back: the program, and etcd's database
}

// Memory reads what the Skiff process holds now.
func (c *Cluster) Memory() Memory {
	c.t.Helper()
	m, err := MemoryOf(c.PID())
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// CPU is the time that the Skiff process has spent so far.
func (c *Cluster) CPU() time.Duration {
	c.t.Helper()
	spent, err := CPUOf(c.PID())
	if err != nil {
		c.t.Fatal(err)
	}
	return spent
}

// MemoryOf reads what a process holds now.
func MemoryOf(pid int) (m Memory, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	defer f.Close()
	parts := map[string]*float64{"VmRSS:": &m.Resident, "RssAnon:": &m.Anonymous, "RssFile:": &m.File}
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || parts[fields[0]] == nil {
			continue
		}
		kib, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return m, err
		}
		*parts[fields[0]] = kib * 1024 / 1e6
	}
	return m, s.Err()
}

// CPUOf is the time that a process has spent so far.
func CPUOf(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field, the program's name, may hold spaces; utime and stime are the 12th and 13th behind its closing parenthesis.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, the same on every Linux
	return time.Duration(ticks) * time.Second / perSecond, nil
}
