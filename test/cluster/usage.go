package cluster

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Memory of the Skiff process in MB (10^6 bytes).
type Memory struct {
	Resident  float64
	Anonymous float64 // the part of it that no file backs
}

// Memory reads what the process holds now.
func (c *Cluster) Memory() Memory {
	c.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", c.PID()))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	var m Memory
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "VmRSS:":
			m.Resident = kib * 1024 / 1e6
		case "RssAnon:":
			m.Anonymous = kib * 1024 / 1e6
		}
	}
	return m
}

// CPU is the time that the process has spent so far.
func (c *Cluster) CPU() time.Duration {
	c.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID()))
	if err != nil {
		c.t.Fatal(err)
	}
	// The second field, the program's name, may hold spaces; utime and stime are the 12th and 13th behind its closing parenthesis.
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		ticks += n
	}
	const perSecond = 100 // USER_HZ, the same on every Linux
	return time.Duration(ticks) * time.Second / perSecond
}
