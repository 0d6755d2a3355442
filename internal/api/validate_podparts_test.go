package api

import "testing"

func TestPodPartsValidation(t *testing.T) {
	checkCreate(t, "Pod", goodPod, []bad{
		{"sysctl", `spec: {securityContext: {sysctls: [{name: kernel.shm_rmid_forced, value: "1"}, {name: net/ipv4/tcp_syncookies, value: "1"}]}}`, nil},
		{"sysctl's name", `spec: {securityContext: {sysctls: [{name: "foo-", value: bar}, {name: "kernel.shmmax", value: "1"}, {name: safe-and-unsafe, value: "1"}, {name: "bar..", value: x}]}}`,
			[]string{"spec.securityContext.sysctls[0].name Invalid", "spec.securityContext.sysctls[3].name Invalid"}},
		{"sysctl twice", `spec: {securityContext: {sysctls: [{name: a.b, value: "1"}, {name: a.b, value: "1"}]}}`, one("spec.securityContext.sysctls[1].name Duplicate")},
		{"sysctl of the host", `spec: {hostNetwork: true, securityContext: {sysctls: [{name: net.a, value: "1"}]}}`, one("spec.securityContext.sysctls[0].name Invalid")},
		{"user", `spec: {securityContext: {runAsUser: -1}}`, one("spec.securityContext.runAsUser Invalid")},
		{"group", `spec: {securityContext: {fsGroup: 2147483648}}`, one("spec.securityContext.fsGroup Invalid")},
		{"more groups", `spec: {securityContext: {supplementalGroups: [1, -1]}}`, one("spec.securityContext.supplementalGroups[1] Invalid")},
		{"seccomp", `spec: {securityContext: {seccompProfile: {type: Localhost}}}`, one("spec.securityContext.seccompProfile.localhostProfile Required")},
		{"name servers", `spec: {dnsConfig: {nameservers: [10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4]}}`, one("spec.dnsConfig.nameservers Invalid")},
		{"name server", `spec: {dnsConfig: {nameservers: [there]}}`, one("spec.dnsConfig.nameservers[0] Invalid")},
		{"search path", `spec: {dnsConfig: {searches: [a.b., ".", "a b"]}}`, one("spec.dnsConfig.searches[2] Invalid")},
		{"option", `spec: {dnsConfig: {options: [{value: a}]}}`, one("spec.dnsConfig.options[0].name Required")},
		{"alias", `spec: {hostAliases: [{ip: 10.0.0.1, hostnames: [A_b]}]}`, one("spec.hostAliases[0].hostnames[0] Invalid")},
		{"gate twice", `spec: {schedulingGates: [{name: g}, {name: g}]}`, one("spec.schedulingGates[1] Duplicate")},
		{"gate", `spec: {schedulingGates: [{name: "a b"}]}`, one("spec.schedulingGates[0] Invalid")},
		{"spread twice", `spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule}, {maxSkew: 2, topologyKey: z, whenUnsatisfiable: DoNotSchedule}]}`,
			one("spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable} Duplicate")},
		{"domains", `spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, minDomains: 2}]}`, one("spec.topologySpreadConstraints[0].minDomains Invalid")},
		{"system", `spec: {os: {name: plan9}}`, one("spec.os.name NotSupported")},
		{"windows of linux", `spec: {os: {name: windows}, hostPID: true}`, one("spec.hostPID Forbidden")},
	})
}
