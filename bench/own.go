package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// quantity is one of the figures that a package's own benchmarks report, and how it is printed.
type quantity struct {
	reported    string
	name, print string
	scale       float64
}

// own runs benchmarks that lie beside the code they measure, as often as the others are repeated, and reports these of their figures.
func (b *bench) own(pkg, pattern, benchtime string, quantities ...quantity) {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", pattern, "-benchtime", benchtime, "-count", strconv.Itoa(b.rounds), pkg)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s (run this from the repository's root, as root): %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	figures := benchmarkFigures(string(out), quantities)
	if len(figures) == 0 {
		b.Fatalf("%s reported nothing:\n%s", strings.Join(cmd.Args, " "), out)
	}
	for _, f := range figures {
		report(f.name, f.unit, f.values...)
	}
}

// series is what the rounds of one benchmark reported of one quantity.
type series struct {
	name, unit string
	values     []float64
}

// benchmarkLine is a name, the number of processors, how often it ran, and what it reported.
var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?[ \t]+\d+[ \t]+(.*)$`)

// benchmarkFigures reads what go test prints of benchmarks, in its order.
func benchmarkFigures(out string, quantities []quantity) (figures []series) {
	for _, line := range benchmarkLine.FindAllStringSubmatch(out, -1) {
		fields := strings.Fields(line[2])
		for i := 0; i+1 < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			which := slices.IndexFunc(quantities, func(q quantity) bool { return q.reported == fields[i+1] })
			if err != nil || which < 0 {
				continue
			}
			q := quantities[which]
			name := strings.TrimSuffix(fmt.Sprintf("%s, %s", line[1], q.name), ", ")
			at := slices.IndexFunc(figures, func(f series) bool { return f.name == name })
			if at < 0 {
				at = len(figures)
				figures = append(figures, series{name: name, unit: q.print})
			}
			figures[at].values = append(figures[at].values, value*q.scale)
		}
	}
	return figures
}
