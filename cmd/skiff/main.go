// Command skiff is a whole Kubernetes cluster in one program.
package main

import (
	"os"

	"skiff.dev/skiff/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
