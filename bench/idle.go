package main

import (
	"time"

	"skiff.dev/skiff/test/cluster"
)

func benchIdle(b *bench) {
	c := cluster.Start(b)
	time.Sleep(b.idle)
	cpu, began := c.CPU(), time.Now()
	time.Sleep(time.Minute)
	spent := (c.CPU() - cpu).Seconds() / time.Since(began).Seconds()
	mem := c.Memory()
	report("idle "+b.idle.String()+" after the start: resident", "MB", mem.Resident)
	report("idle: anonymous", "MB", mem.Anonymous)
	report("idle: CPU", "% of a core", 100*spent)
}
