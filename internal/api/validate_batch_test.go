package api

import (
	"strings"
	"testing"
)

func TestBatchValidation(t *testing.T) {
	const job = `
metadata: {name: j, namespace: default}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  selector: {matchLabels: {uid: u}}
  template: {metadata: {labels: {uid: u}}, spec: {restartPolicy: Never, containers: [{name: a, image: web}]}}
`
	const rule = `{action: FailJob, onExitCodes: {operator: In, values: [1]}}`
	checkCreate(t, "batch/Job", job, []bad{
		{"limit per index", `spec: {backoffLimitPerIndex: 1, maxFailedIndexes: 2}`, nil},
		{"limit per index without indexes", `spec: {completionMode: NonIndexed, backoffLimitPerIndex: 1}`, one("spec.backoffLimitPerIndex Invalid")},
		{"indexes without a number", `spec: {completions: null}`, one("spec.completions Required")},
		{"too parallel", `spec: {parallelism: 100001}`, one("spec.parallelism Invalid")},
		{"failed indexes without a limit", `spec: {maxFailedIndexes: 2}`, one("spec.backoffLimitPerIndex Required")},
		{"failed indexes, more than all", `spec: {backoffLimitPerIndex: 1, maxFailedIndexes: 4}`, one("spec.maxFailedIndexes Invalid")},
		{"mode", `spec: {completionMode: Some}`, one("spec.completionMode NotSupported")},
		{"policy", `spec: {podFailurePolicy: {rules: [` + rule + `]}}`, nil},
		{"policy and restarts", `spec: {podFailurePolicy: {rules: [` + rule + `]}, template: {spec: {restartPolicy: OnFailure}}}`, one("spec.template.spec.restartPolicy Invalid")},
		{"policy and early replacement", `spec: {podReplacementPolicy: TerminatingOrFailed, podFailurePolicy: {rules: [` + rule + `]}}`, one("spec.podReplacementPolicy NotSupported")},
		{"policy about nothing", `spec: {podFailurePolicy: {rules: [{action: Ignore}]}}`, one("spec.podFailurePolicy.rules[0] Invalid")},
		{"policy: no such action", `spec: {podFailurePolicy: {rules: [{action: Cry, onPodConditions: [{type: A, status: "True"}]}]}}`, one("spec.podFailurePolicy.rules[0].action NotSupported")},
		{"policy: fail the index", `spec: {podFailurePolicy: {rules: [{action: FailIndex, onPodConditions: [{type: A, status: "True"}]}]}}`, one("spec.podFailurePolicy.rules[0].action Invalid")},
		{"policy: codes", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [3, 1]}}]}}`, one("spec.podFailurePolicy.rules[0].onExitCodes.values Invalid")},
		{"policy: success", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [0]}}]}}`, one("spec.podFailurePolicy.rules[0].onExitCodes.values[0] Invalid")},
		{"policy: container", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {containerName: z, operator: In, values: [1]}}]}}`,
			one("spec.podFailurePolicy.rules[0].onExitCodes.containerName Invalid")},
		{"success policy", `spec: {successPolicy: {rules: [{succeededIndexes: "0,1-2", succeededCount: 3}]}}`, nil},
		{"success policy of more than there are", `spec: {successPolicy: {rules: [{succeededIndexes: "0,1-2", succeededCount: 4}]}}`,
			[]string{"spec.successPolicy.rules[0].succeededCount Invalid", "spec.successPolicy.rules[0].succeededCount Invalid"}},
		{"success policy of indexes there are not", `spec: {successPolicy: {rules: [{succeededIndexes: "0-3"}]}}`, one("spec.successPolicy.rules[0].succeededIndexes Invalid")},
		{"success policy: disorder", `spec: {successPolicy: {rules: [{succeededIndexes: "2,1"}]}}`, one("spec.successPolicy.rules[0].succeededIndexes Invalid")},
		{"policy: both", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [1]}, onPodConditions: [{type: A, status: "True"}]}]}}`,
			one("spec.podFailurePolicy.rules[0] Invalid")},
		{"policy: condition's type", `spec: {podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: "A b", status: "True"}]}]}}`,
			one("spec.podFailurePolicy.rules[0].onPodConditions[0].type Invalid")},
		{"policy: condition's status", `spec: {podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: A, status: Maybe}]}]}}`,
			one("spec.podFailurePolicy.rules[0].onPodConditions[0].status NotSupported")},
		{"policy: a condition is to be true unless it says otherwise", `spec: {podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: A}]}]}}`, nil},
		{"policy: a code twice", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [1, 1]}}]}}`,
			one("spec.podFailurePolicy.rules[0].onExitCodes.values[1] Duplicate")},
		{"success policy without rules", `spec: {successPolicy: {rules: []}}`, one("spec.successPolicy.rules Required")},
		{"success policy without indexes", `spec: {completionMode: NonIndexed, successPolicy: {rules: [{succeededCount: 1}]}}`, one("spec.successPolicy Invalid")},
		{"success policy: a range backwards", `spec: {successPolicy: {rules: [{succeededIndexes: "2-1"}]}}`, one("spec.successPolicy.rules[0].succeededIndexes Invalid")},
		{"many completions", `spec: {completions: 100001, parallelism: 10000, backoffLimitPerIndex: 1, maxFailedIndexes: 10000}`, nil},
		{"many completions, many pods", `spec: {completions: 100001, parallelism: 10001, backoffLimitPerIndex: 1, maxFailedIndexes: 10001}`,
			[]string{"spec.maxFailedIndexes Invalid", "spec.parallelism Invalid"}},
		{"many completions, failures unbounded", `spec: {completions: 100001, parallelism: 1, backoffLimitPerIndex: 1}`, one("spec.maxFailedIndexes Required")},
		{"manager", `spec: {managedBy: example.com/mine}`, nil},
		{"manager without a domain", `spec: {managedBy: mine}`, one("spec.managedBy Invalid")},
		{"manager too long", "spec: {managedBy: example.com/" + strings.Repeat("a", 52) + "}", one("spec.managedBy TooLong")},
		{"restart policy", `spec: {template: {spec: {restartPolicy: Some}}}`, []string{"spec.template.spec.restartPolicy NotSupported", "spec.template.spec.restartPolicy NotSupported"}},
		{"selector of others", `spec: {selector: {matchLabels: {uid: v}}}`, one("spec.template.metadata.labels Invalid")},
		{"name too long for its pods", "{metadata: {name: " + strings.Repeat("j", 62) + "}}", one("metadata.name Invalid")},
		{"labels made by the server", `{metadata: {uid: u}, spec: {manualSelector: true}}`, nil},
		{"labels that the server did not make", `metadata: {uid: u}`, []string{
			"spec.selector Invalid", "spec.template.metadata.labels[batch.kubernetes.io/controller-uid] Required",
			"spec.template.metadata.labels[batch.kubernetes.io/job-name] Required", "spec.template.metadata.labels[controller-uid] Required",
			"spec.template.metadata.labels[job-name] Required"}},
		{"success policy about nothing", `spec: {successPolicy: {rules: [{}]}}`, one("spec.successPolicy.rules[0] Required")},
	})
	checkUpdate(t, "batch/Job", job, []bad{
		{"elastic", `spec: {completions: 5, parallelism: 5}`, nil},
		{"completions alone", `spec: {completions: 5}`, one("spec.completions Invalid")},
		{"mode", `spec: {completionMode: NonIndexed}`, []string{"spec.completionMode Invalid"}},
		{"selector", `spec: {selector: {matchLabels: {uid: v}}, template: {metadata: {labels: {uid: v}}}}`, []string{"spec.selector Invalid", "spec.template Invalid"}},
		{"manager", `spec: {managedBy: example.com/mine}`, one("spec.managedBy Invalid")},
		{"failure policy", `spec: {podFailurePolicy: {rules: [` + rule + `]}}`, one("spec.podFailurePolicy Invalid")},
		{"success policy", `spec: {successPolicy: {rules: [{succeededCount: 1}]}}`, one("spec.successPolicy Invalid")},
		{"limit per index", `spec: {backoffLimitPerIndex: 1}`, one("spec.backoffLimitPerIndex Invalid")},
		{"where", `spec: {template: {spec: {nodeSelector: {a: b}}}}`, one("spec.template Invalid")},
		{"suspended", `spec: {suspend: true}`, nil},
	})
	const resting = `spec: {suspend: true, template: {spec: {affinity: {podAffinity: {}}}}}`
	restingJob := job + "  suspend: true\n"
	checkUpdate(t, "batch/Job", restingJob, []bad{
		{"where", `spec: {suspend: false, template: {metadata: {labels: {a: b}, annotations: {a: b}}, spec: {nodeSelector: {a: b}, tolerations: [{operator: Exists}],
			schedulingGates: [{name: a.b/c}], affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}}}}`, nil},
		{"how much", `spec: {template: {spec: {containers: [{name: a, image: web, resources: {requests: {cpu: 1}}}]}}}`, nil},
		{"what", `spec: {template: {spec: {containers: [{name: a, image: other}]}}}`, one("spec.template Invalid")},
		{"beside whom", resting, one("spec.template Invalid")},
	})
	checkUpdate(t, "batch/Job", restingJob+"status: {startTime: 2026-01-01T00:00:00Z, active: 1}\n", []bad{
		{"where, while pods run", `spec: {template: {spec: {nodeSelector: {a: b}}}}`, one("spec.template Invalid")}})
	checkUpdate(t, "batch/Job", restingJob+"status: {startTime: 2026-01-01T00:00:00Z, conditions: [{type: Suspended, status: \"True\"}]}\n", []bad{
		{"where, once they are gone", `spec: {template: {spec: {nodeSelector: {a: b}}}}`, nil}})
	const cronJob = `
metadata: {name: c, namespace: default}
spec: {schedule: "*/5 * * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: web}]}}}}}
`
	checkCreate(t, "batch/CronJob", cronJob, []bad{
		{"name of a schedule", `spec: {schedule: "@hourly"}`, nil},
		{"no schedule", `spec: {schedule: soon}`, one("spec.schedule Invalid")},
		{"zone in the schedule", `spec: {schedule: "CRON_TZ=UTC * * * * *"}`, one("spec.schedule Invalid")},
		{"zone", `spec: {timeZone: Europe/Berlin}`, nil},
		{"no zone", `spec: {timeZone: Atlantis}`, one("spec.timeZone Invalid")},
		{"wherever we are", `spec: {timeZone: local}`, one("spec.timeZone Invalid")},
		{"deadline", `spec: {startingDeadlineSeconds: -1}`, one("spec.startingDeadlineSeconds Invalid")},
		{"history", `spec: {failedJobsHistoryLimit: -1}`, one("spec.failedJobsHistoryLimit Invalid")},
		{"zone's name", `spec: {timeZone: ../x}`, one("spec.timeZone Invalid")},
		{"selector", `spec: {jobTemplate: {spec: {selector: {matchLabels: {a: b}}}}}`, one("spec.jobTemplate.spec.selector Invalid")},
		{"selector by hand", `spec: {jobTemplate: {spec: {manualSelector: true}}}`, one("spec.jobTemplate.spec.manualSelector NotSupported")},
	})
	checkUpdate(t, "batch/CronJob", strings.Replace(strings.Replace(cronJob, "name: c,", "name: "+strings.Repeat("c", 60)+",", 1), "*/5", "TZ=UTC */5", 1), []bad{
		{"an old name, an old schedule", `spec: {suspend: true}`, nil},
		{"another with a zone", `spec: {schedule: "CRON_TZ=UTC * * * * *"}`, nil},
		{"two zones", `spec: {timeZone: UTC}`, one("spec.schedule Invalid")},
	})
}

func TestUpdateStrategies(t *testing.T) {
	checkCreate(t, "apps/StatefulSet", goodDeployment, []bad{
		{"partition", `spec: {updateStrategy: {rollingUpdate: {partition: -1}}}`, one("spec.updateStrategy.rollingUpdate.partition Invalid")},
		{"nothing may move", `spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 0}}}`, one("spec.updateStrategy.rollingUpdate.maxUnavailable Invalid")},
		{"half", `spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 50%}}}`, nil},
		{"roll on delete", `spec: {updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}}`, one("spec.updateStrategy.rollingUpdate Invalid")},
		{"strategy", `spec: {updateStrategy: {type: Magic}}`, one("spec.updateStrategy Invalid")},
		{"order", `spec: {podManagementPolicy: Chaos}`, one("spec.podManagementPolicy Invalid")},
		{"ordinals", `spec: {ordinals: {start: -1}}`, one("spec.ordinals.start Invalid")},
		{"retention", `spec: {persistentVolumeClaimRetentionPolicy: {whenScaled: Forget}}`, one("spec.persistentVolumeClaimRetentionPolicy.whenScaled NotSupported")},
	})
	checkCreate(t, "apps/DaemonSet", goodDeployment, []bad{
		{"surge", `spec: {updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}}`, nil},
		{"both", `spec: {updateStrategy: {rollingUpdate: {maxSurge: 1}}}`, one("spec.updateStrategy.rollingUpdate.maxSurge Invalid")},
		{"neither", `spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 0}}}`, one("spec.updateStrategy.rollingUpdate.maxUnavailable Required")},
		{"strategy", `spec: {updateStrategy: {type: Magic}}`, one("spec.updateStrategy NotSupported")},
		{"more than all", `spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 101%}}}`, one("spec.updateStrategy.rollingUpdate.maxUnavailable Invalid")},
	})
}

func TestJobStatus(t *testing.T) {
	const job = `
metadata: {name: j, namespace: default}
spec: {completions: 3, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 1}
status:
  startTime: 2026-01-01T00:00:00Z
  active: 2
  ready: 1
  failed: 1
  succeeded: 1
`
	const at, done, failed, target, met = `"2026-01-02T00:00:00Z"`, `{type: Complete, status: "True"}`, `{type: Failed, status: "True"}`, `{type: FailureTarget, status: "True"}`,
		`{type: SuccessCriteriaMet, status: "True"}`
	checkStatus(t, "batch/Job", job, []bad{
		{"counts", `status: {active: -1, ready: -1, succeeded: 1, failed: 1}`, []string{"status.active Invalid", "status.ready Invalid"}},
		{"more ready than active", `status: {ready: 3}`, one("status.ready Invalid")},
		{"fewer failures", `status: {failed: 0}`, one("status.failed Invalid")},
		{"fewer successes", `status: {succeeded: 0}`, one("status.succeeded Invalid")},
		{"done", `status: {active: 0, ready: 0, completionTime: ` + at + `, conditions: [` + met + `, ` + done + `]}`, nil},
		{"done without a time", `status: {active: 0, ready: 0, conditions: [` + met + `, ` + done + `]}`, one("status.completionTime Required")},
		{"done before it began", `status: {active: 0, ready: 0, completionTime: "2025-01-01T00:00:00Z", conditions: [` + met + `, ` + done + `]}`, one("status.completionTime Invalid")},
		{"a time but not done", `status: {completionTime: ` + at + `}`, one("status.completionTime Invalid")},
		{"done of a sudden", `status: {active: 0, ready: 0, completionTime: ` + at + `, conditions: [` + done + `]}`, one("status.conditions Invalid")},
		{"done with pods", `status: {completionTime: ` + at + `, terminating: 1, conditions: [` + met + `, ` + done + `]}`, []string{"status.active Invalid", "status.terminating Invalid"}},
		{"failed", `status: {active: 0, ready: 0, conditions: [` + target + `, ` + failed + `]}`, nil},
		{"failed of a sudden", `status: {active: 0, ready: 0, conditions: [` + failed + `]}`, one("status.conditions Invalid")},
		{"failed and uncounted", `status: {active: 0, ready: 0, uncountedTerminatedPods: {failed: [a]}, conditions: [` + target + `, ` + failed + `]}`,
			one("status.uncountedTerminatedPods Invalid")},
		{"both", `status: {active: 0, ready: 0, completionTime: ` + at + `, conditions: [` + done + `, ` + failed + `, ` + target + `, ` + met + `]}`, []string{
			"status.conditions Invalid", "status.conditions Invalid", "status.conditions Invalid", "status.conditions Invalid"}},
		{"uncounted twice", `status: {uncountedTerminatedPods: {failed: [a], succeeded: [a, ""]}}`,
			[]string{"status.uncountedTerminatedPods.failed[0] Duplicate", "status.uncountedTerminatedPods.succeeded[1] Invalid"}},
		{"another start", `status: {startTime: 2026-01-03T00:00:00Z}`, one("status.startTime Required")},
		{"indexes", `status: {completedIndexes: "0", failedIndexes: "1-2"}`, nil},
		{"no indexes", `status: {completedIndexes: x, failedIndexes: "3"}`, []string{"status.completedIndexes Invalid", "status.failedIndexes Invalid"}},
		{"indexes of both sorts", `status: {completedIndexes: "0-1", failedIndexes: "1,2"}`, one("status.failedIndexes Invalid")},
	})
	checkStatus(t, "batch/Job", job+"  completionTime: "+at+"\n  conditions: ["+met+", "+done+"]\n", []bad{
		{"not done any more", `status: {completionTime: null, conditions: []}`, []string{"status.conditions Invalid", "status.conditions Invalid"}},
		{"another end", `status: {completionTime: "2026-01-03T00:00:00Z"}`, one("status.completionTime Invalid")},
	})
}

func TestWorkloadStatus(t *testing.T) {
	checkStatus(t, "apps/Deployment", "status: {replicas: 2, readyReplicas: 2, availableReplicas: 1, updatedReplicas: 1, collisionCount: 1}\n", []bad{
		{"negative", `status: {unavailableReplicas: -1, terminatingReplicas: -1, observedGeneration: -1}`, []string{
			"status.observedGeneration Invalid", "status.terminatingReplicas Invalid", "status.unavailableReplicas Invalid"}},
		{"more than all", `status: {updatedReplicas: 3, readyReplicas: 3}`, []string{"status.readyReplicas Invalid", "status.updatedReplicas Invalid"}},
		{"more available than ready", `status: {readyReplicas: 0}`, one("status.availableReplicas Invalid")},
		{"fewer collisions", `status: {collisionCount: 0}`, one("status.collisionCount Invalid")},
	})
	checkStatus(t, "apps/ReplicaSet", "status: {replicas: 1}\n", []bad{{"labelled", `status: {fullyLabeledReplicas: 2}`, one("status.fullyLabeledReplicas Invalid")}})
	checkStatus(t, "ReplicationController", "status: {replicas: 1}\n", []bad{{"ready", `status: {readyReplicas: 2}`, one("status.readyReplicas Invalid")}})
	checkStatus(t, "apps/StatefulSet", "status: {replicas: 1}\n", []bad{{"current", `status: {currentReplicas: 2}`, one("status.currentReplicas Invalid")}})
	checkStatus(t, "apps/DaemonSet", "status: {collisionCount: 2}\n", []bad{
		{"negative", `status: {numberReady: -1}`, one("status.numberReady Invalid")},
		{"collisions", `status: {collisionCount: null}`, one("status.collisionCount Invalid")},
	})
}
