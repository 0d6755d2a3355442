// Command skiff-cni is the CNI plug-in that container runtimes start for every pod. It hands the command to the agent over the socket that
// its configuration names, and prints what the agent answers; everything is decided and done there.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"skiff.dev/skiff/internal/network/cniwire"
)

// patience is how long a command may take: longer than the agent itself waits for anything.
const patience = 60 * time.Second

func main() {
	os.Exit(run(os.Getenv, os.Stdin, os.Stdout))
}

func run(env func(string) string, in io.Reader, out io.Writer) int {
	var conf struct {
		CNIVersion string `json:"cniVersion"`
		Socket     string `json:"socket"`
	}
	fail := func(code uint, format string, args ...any) int {
		e := cniwire.Error{CNIVersion: conf.CNIVersion, Code: code, Msg: fmt.Sprintf(format, args...)}
		if e.CNIVersion == "" {
			e.CNIVersion = cniwire.Versions[len(cniwire.Versions)-1]
		}
		_ = json.NewEncoder(out).Encode(e)
		return 1
	}
	input, err := io.ReadAll(in)
	if err != nil {
		return fail(cniwire.CodeIO, "read the configuration: %v", err)
	}
	command := env("CNI_COMMAND")
	if err := json.Unmarshal(input, &conf); err != nil && command != "VERSION" {
		return fail(cniwire.CodeDecode, "the configuration is no JSON: %v", err)
	}
	switch command {
	case "VERSION":
		_ = json.NewEncoder(out).Encode(map[string]any{"cniVersion": cniwire.Versions[len(cniwire.Versions)-1], "supportedVersions": cniwire.Versions})
		return 0
	case "ADD", "DEL", "CHECK", "GC", "STATUS":
	default:
		return fail(cniwire.CodeEnvironment, "CNI_COMMAND %q is not one of ADD, DEL, CHECK, GC, STATUS, VERSION", command)
	}
	if conf.Socket == "" {
		return fail(cniwire.CodeConfig, "the configuration names no socket")
	}
	reply, err := ask(conf.Socket, cniwire.Request{
		Command: command, ContainerID: env("CNI_CONTAINERID"), Netns: env("CNI_NETNS"), IfName: env("CNI_IFNAME"),
		Args: env("CNI_ARGS"), Config: input,
	})
	switch {
	case err != nil && command == "STATUS":
		return fail(cniwire.CodeNotAvailable, "the agent does not answer: %v", err)
	case err != nil:
		return fail(cniwire.CodeTryLater, "the agent does not answer: %v", err)
	case reply.Error != nil:
		_ = json.NewEncoder(out).Encode(reply.Error)
		return 1
	}
	if len(reply.Result) > 0 {
		_, _ = out.Write(append(reply.Result, '\n'))
	}
	return 0
}

// ask sends one request to the agent and waits for its reply.
func ask(socket string, r cniwire.Request) (cniwire.Reply, error) {
	var reply cniwire.Reply
	conn, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return reply, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return reply, err
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return reply, err
	}
	return reply, json.NewDecoder(conn).Decode(&reply)
}
