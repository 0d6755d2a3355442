package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func load(t *testing.T, yaml string, env []string, args ...string) (*Config, error) {
	t.Helper()
	file := ""
	if yaml != "" {
		file = filepath.Join(t.TempDir(), "skiff.yaml")
		if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, fs := Default(), pflag.NewFlagSet("skiff", pflag.ContinueOnError)
	c.Bind(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if err := c.Fill(fs, file, env); err != nil {
		return nil, err
	}
	return c, c.Complete()
}

func TestSourcesAndTheirOrder(t *testing.T) {
	const file = "runtime-config: [scheduling.k8s.io/v1beta1=true]\nnode-name: from-file\nmax-pods: 7\nno-scheduler: true\ntls-san: [a.example, b.example]\npod-cidr: 10.1.0.0/16\n"
	c, err := load(t, file, []string{"SKIFF_NODE_NAME=from-env", "SKIFF_POD_CIDR=10.2.0.0/16", "SKIFF_BIN_DIR=/x", "HOME=/root"}, "--pod-cidr=10.3.0.0/16")
	if err != nil {
		t.Fatal(err)
	}
	if c.PodCIDR != "10.3.0.0/16" {
		t.Errorf("pod-cidr: got %s, want the flag's", c.PodCIDR)
	}
	if c.NodeName != "from-env" {
		t.Errorf("node-name: got %s, want the environment's", c.NodeName)
	}
	if c.MaxPods != 7 || !c.NoScheduler || strings.Join(c.TLSSAN, " ") != "a.example b.example" {
		t.Errorf("the file was not followed: %+v", c)
	}
	if got := c.ServedBesides(); len(got) != 1 || got[0] != "scheduling.k8s.io/v1beta1" {
		t.Errorf("runtime-config: serves %v besides", got)
	}
	if got := Default().ServedBesides(); len(got) != 0 {
		t.Errorf("runtime-config: serves %v without being asked", got)
	}
	if c.ServiceCIDR != Default().ServiceCIDR {
		t.Errorf("service-cidr: got %s, want the default", c.ServiceCIDR)
	}
}

func TestWrongValuesAreNamed(t *testing.T) {
	cases := []struct {
		name, yaml string
		env, args  []string
		want       string
	}{
		{"unknown flag", "", nil, []string{"--dta-dir=/x"}, "unknown flag: --dta-dir"},
		{"unknown key", "dta-dir: /x\n", nil, nil, `no key "dta-dir"`},
		{"file is no YAML", "a: [1\n", nil, nil, "is not valid YAML"},
		{"key twice", "max-pods: 1\nmax-pods: 2\n", nil, nil, "is not valid YAML"},
		{"wrong type in file", "max-pods: many\n", nil, nil, `max-pods: want a whole number, got "many"`},
		{"wrong type in list", "tls-san: [1]\n", nil, nil, "tls-san[0]: want a string"},
		{"nested value", "tls-san: {a: b}\n", nil, nil, "tls-san: want a plain value"},
		{"wrong type in environment", "", []string{"SKIFF_NO_AGENT=perhaps"}, nil, "SKIFF_NO_AGENT: want true or false"},
		{"root as data dir", "", nil, []string{"--data-dir=/"}, "data-dir:"},
		{"pod range", "", nil, []string{"--pod-cidr=10.42.0.1/16"}, "pod-cidr:"},
		{"overlap", "", nil, []string{"--service-cidr=10.42.128.0/17"}, "overlaps"},
		{"mask", "", nil, []string{"--node-cidr-mask-size=16"}, "node-cidr-mask-size:"},
		{"three ranges", "", nil, []string{"--pod-cidr=10.42.0.0/16,fd42::/56,fd43::/56"}, "pod-cidr: 3 ranges are too many"},
		{"one family twice", "", nil, []string{"--cluster-cidr=10.42.0.0/16,10.52.0.0/16"}, "pod-cidr: 10.42.0.0/16 and 10.52.0.0/16 are of one family"},
		{"mapped range", "", nil, []string{"--pod-cidr=::ffff:10.42.0.0/112"}, "write it as IPv4"},
		{"second ranges overlap", "", nil, []string{"--pod-cidr=10.42.0.0/16,fd42::/56", "--service-cidr=10.43.0.0/16,fd42::/112"}, "service-cidr: fd42::/112 overlaps pod-cidr fd42::/56"},
		{"primaries differ", "", nil, []string{"--pod-cidr=10.42.0.0/16,fd42::/56", "--service-cidr=fd43::/112"}, "the first of both must be of the same"},
		{"services without pods", "", nil, []string{"--service-cidr=10.43.0.0/16,fd43::/112"}, "a family that pods have no addresses of"},
		{"few services", "", nil, []string{"--pod-cidr=fd42::/56", "--service-cidr=fd43::/125"}, "a /124 is the least"},
		{"mask of no family", "", nil, []string{"--pod-cidr=10.42.0.0/16,fd42::/56", "--node-cidr-mask-size=24"}, "give node-cidr-mask-size-ipv4 and"},
		{"IPv6 mask", "", nil, []string{"--pod-cidr=10.42.0.0/16,fd42::/56", "--node-cidr-mask-size-ipv6=56"}, "node-cidr-mask-size-ipv6: 56 does not divide pod-cidr fd42::/56; a number from 57 to 126 does"},
		{"a key by both its names", "pod-cidr: 10.1.0.0/16\ncluster-cidr: 10.2.0.0/16\n", nil, nil, "cluster-cidr and pod-cidr are the same"},
		{"ports", "", nil, []string{"--service-node-port-range=32767-30000"}, "service-node-port-range:"},
		{"runtime config", "", nil, []string{"--runtime-config=batch/v1=true"}, `runtime-config: "batch/v1" cannot be switched; the group-versions that can be are scheduling.k8s.io/v1beta1`},
		{"runtime config in file", "runtime-config: [scheduling.k8s.io/v1beta1=maybe]\n", nil, nil, `runtime-config: "scheduling.k8s.io/v1beta1=maybe": "maybe" is neither true nor false`},
		{"runtime config twice", "", nil, []string{"--runtime-config=scheduling.k8s.io/v1beta1=true,scheduling.k8s.io/v1beta1=false"}, "scheduling.k8s.io/v1beta1 is both on and off"},
		{"listen", "", nil, []string{"--listen=6443"}, "listen:"},
		{"listen by name", "", nil, []string{"--listen=localhost:6443"}, "no IP address"},
		{"proxy health", "", nil, []string{"--proxy-healthz-bind-address=10256"}, "proxy-healthz-bind-address:"},
		{"proxy figures", "", nil, []string{"--proxy-metrics-bind-address=here:1"}, "proxy-metrics-bind-address:"},
		{"node ip", "", nil, []string{"--node-ip=127.0.0.1"}, "node-ip:"},
		{"node ips of one family", "", nil, []string{"--node-ip=192.0.2.1,192.0.2.2"}, "node-ip:"},
		{"node ips, one of which is none", "", nil, []string{"--node-ip=192.0.2.1,"}, "node-ip:"},
		{"level", "", nil, []string{"--log-level=loud"}, "log-level:"},
		{"log files", "", nil, []string{"--container-log-max-files=1"}, "container-log-max-files: 1 is too little; 2 is the least"},
		{"log hours", "", nil, []string{"--log-keep-hours=-1"}, "log-keep-hours:"},
		{"format", "", nil, []string{"--log-format=xml"}, "log-format:"},
		{"long name", "", nil, []string{"--cluster-name=a-very-long-name"}, "cluster-name:"},
		{"node name", "", nil, []string{"--node-name=a b"}, "node-name:"},
		{"cri", "", nil, []string{"--cri-endpoint=/run/x.sock"}, "cri-endpoint:"},
		{"pool", "", nil, []string{"--lb-pool=192.0.2.10-192.0.2.20,192.0.2.1"}, `lb-pool: "192.0.2.1" is neither a CIDR`},
		{"pool among pods", "lb-pool: [10.42.7.0/24]\n", nil, nil, "lb-pool: 10.42.7.1-10.42.7.254 overlaps pod-cidr 10.42.0.0/16"},
		{"pool among services", "", nil, []string{"--lb-pool=10.43.0.0-10.43.0.9"}, "overlaps service-cidr"},
		{"hard threshold", "", nil, []string{"--eviction-hard=memory.available"}, "eviction-hard:"},
		{"soft threshold", "", nil, []string{"--eviction-soft=imagefs.available<1Gi"}, `eviction-soft: "imagefs.available" is none of`},
		{"soft threshold without a period", "", nil, []string{"--eviction-soft=memory.available<1Gi"}, "eviction-soft-grace-period: memory.available has a soft threshold"},
		{"period without a soft threshold", "", nil, []string{"--eviction-soft-grace-period=memory.available=1m"}, "eviction-soft-grace-period: memory.available has no soft threshold"},
		{"period", "", nil, []string{"--eviction-soft-grace-period=memory.available=long"}, `eviction-soft-grace-period: memory.available: "long"`},
		{"reclaim", "eviction-minimum-reclaim: [nodefs.available]\n", nil, nil, "eviction-minimum-reclaim:"},
		{"transition", "", nil, []string{"--eviction-pressure-transition-period=5"}, "eviction-pressure-transition-period:"},
		{"pod's grace", "", []string{"SKIFF_EVICTION_MAX_POD_GRACE_PERIOD=1m"}, nil, "SKIFF_EVICTION_MAX_POD_GRACE_PERIOD: want a whole number"},
		{"shutdown", "", nil, []string{"--shutdown-grace-period=soon"}, `shutdown-grace-period: "soon"`},
		{"shutdown of critical pods", "", nil, []string{"--shutdown-grace-period-critical-pods=1"}, "shutdown-grace-period-critical-pods:"},
		{"shutdown that is too short", "", nil, []string{"--shutdown-grace-period=10s", "--shutdown-grace-period-critical-pods=20s"}, "shutdown-grace-period: 20s for critical pods is more"},
		{"shutdown by priority", "shutdown-grace-period-by-pod-priority: [high=10s]\n", nil, nil, `shutdown-grace-period-by-pod-priority: "high=10s"`},
		{"shutdown both ways", "", nil, []string{"--shutdown-grace-period-by-pod-priority=0=10s", "--shutdown-grace-period=10s"}, "give it or them"},
		{"events", "", nil, []string{"--event-ttl=5"}, `event-ttl: "5" is no period such as 1h`},
		{"events that are gone at once", "event-ttl: 1s\n", nil, nil, "of 10s at least"},
		{"half a key pair", "", nil, []string{"--etcd-certfile=/x"}, "go together"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.yaml, c.env, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is longer than a line: %q", err)
			}
		})
	}
}

func TestEveryDataDirHasItsName(t *testing.T) {
	if got := nameFor("/var/lib/skiff"); got != "skiff" {
		t.Errorf("got %s", got)
	}
	a, b := nameFor("/tmp/a"), nameFor("/tmp/b")
	if a == b || len(a) > 11 {
		t.Errorf("got %s and %s", a, b)
	}
}

func TestTwoFamilies(t *testing.T) {
	for _, args := range [][]string{
		{"--cluster-cidr=10.42.0.0/16,fd42::/56", "--service-cluster-ip-range=10.43.0.0/16,fd43::/112"},
		{"--pod-cidr=10.42.0.0/16,fd42::/56", "--service-cidr=10.43.0.0/16,fd43::/112", "--node-cidr-mask-size-ipv6=64"},
	} {
		c, err := load(t, "", nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(c.ClusterCIDRs(), c.ServiceCIDRs(), c.NodeCIDRMasks(), c.ServiceAddrs(10)); got != "[10.42.0.0/16 fd42::/56] [10.43.0.0/16 fd43::/112] [24 64] [10.43.0.10 fd43::a]" {
			t.Errorf("%v: %s", args, got)
		}
	}
	c, err := load(t, "pod-cidr: [fd42::/56]\nservice-cluster-ip-range: fd43::/112\n", []string{"SKIFF_NODE_CIDR_MASK_SIZE=72"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(c.ClusterCIDRs(), c.ServiceCIDRs(), c.NodeCIDRMasks()); got != "[fd42::/56] [fd43::/112] [72]" {
		t.Errorf("IPv6 alone: %s", got)
	}
}

func TestServiceAddr(t *testing.T) {
	if got := Default().ServiceAddr(10).String(); got != "10.43.0.10" {
		t.Errorf("got %s", got)
	}
}

func TestEveryFieldHasKeyAndHelp(t *testing.T) {
	for key, f := range Default().fields() {
		if key == "" || f.help == "" {
			t.Errorf("field with key %q lacks its key or help", key)
		}
	}
}
