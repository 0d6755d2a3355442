package api

import "testing"

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
		{"policy and restarts", `spec: {podFailurePolicy: {rules: [` + rule + `]}, template: {spec: {restartPolicy: OnFailure}}}`, one("spec.podFailurePolicy Invalid")},
		{"policy and early replacement", `spec: {podReplacementPolicy: TerminatingOrFailed, podFailurePolicy: {rules: [` + rule + `]}}`, one("spec.podReplacementPolicy NotSupported")},
		{"policy about nothing", `spec: {podFailurePolicy: {rules: [{action: Ignore}]}}`, one("spec.podFailurePolicy.rules[0] Invalid")},
		{"policy: no such action", `spec: {podFailurePolicy: {rules: [{action: Cry, onPodConditions: [{type: A, status: "True"}]}]}}`, one("spec.podFailurePolicy.rules[0].action NotSupported")},
		{"policy: fail the index", `spec: {podFailurePolicy: {rules: [{action: FailIndex, onPodConditions: [{type: A, status: "True"}]}]}}`, one("spec.podFailurePolicy.rules[0].action Invalid")},
		{"policy: codes", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [3, 1]}}]}}`, one("spec.podFailurePolicy.rules[0].onExitCodes.values Invalid")},
		{"policy: success", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [0]}}]}}`, one("spec.podFailurePolicy.rules[0].onExitCodes.values[0] Invalid")},
		{"policy: container", `spec: {podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {containerName: z, operator: In, values: [1]}}]}}`,
			one("spec.podFailurePolicy.rules[0].onExitCodes.containerName Invalid")},
		{"success policy", `spec: {successPolicy: {rules: [{succeededIndexes: "0,1-2", succeededCount: 3}]}}`, nil},
		{"success policy of more than there are", `spec: {successPolicy: {rules: [{succeededIndexes: "0,1-2", succeededCount: 4}]}}`, one("spec.successPolicy.rules[0].succeededCount Invalid")},
		{"success policy of indexes there are not", `spec: {successPolicy: {rules: [{succeededIndexes: "0-3"}]}}`, one("spec.successPolicy.rules[0].succeededIndexes Invalid")},
		{"success policy: disorder", `spec: {successPolicy: {rules: [{succeededIndexes: "2,1"}]}}`, one("spec.successPolicy.rules[0].succeededIndexes Invalid")},
		{"success policy about nothing", `spec: {successPolicy: {rules: [{}]}}`, one("spec.successPolicy.rules[0] Required")},
	})
	checkUpdate(t, "batch/Job", job, []bad{
		{"elastic", `spec: {completions: 5, parallelism: 5}`, nil},
		{"completions alone", `spec: {completions: 5}`, one("spec.completions Invalid")},
		{"mode", `spec: {completionMode: NonIndexed}`, one("spec.completionMode Invalid")},
	})
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
	})
}

func TestUpdateStrategies(t *testing.T) {
	checkCreate(t, "apps/StatefulSet", goodDeployment, []bad{
		{"partition", `spec: {updateStrategy: {rollingUpdate: {partition: -1}}}`, one("spec.updateStrategy.rollingUpdate.partition Invalid")},
		{"nothing may move", `spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 0}}}`, one("spec.updateStrategy.rollingUpdate.maxUnavailable Invalid")},
		{"half", `spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 50%}}}`, nil},
		{"roll on delete", `spec: {updateStrategy: {type: OnDelete, rollingUpdate: {partition: 1}}}`, one("spec.updateStrategy.rollingUpdate Invalid")},
		{"strategy", `spec: {updateStrategy: {type: Magic}}`, one("spec.updateStrategy.type NotSupported")},
		{"order", `spec: {podManagementPolicy: Chaos}`, one("spec.podManagementPolicy NotSupported")},
		{"ordinals", `spec: {ordinals: {start: -1}}`, one("spec.ordinals.start Invalid")},
		{"retention", `spec: {persistentVolumeClaimRetentionPolicy: {whenScaled: Forget}}`, one("spec.persistentVolumeClaimRetentionPolicy.whenScaled NotSupported")},
	})
	checkCreate(t, "apps/DaemonSet", goodDeployment, []bad{
		{"surge", `spec: {updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}}`, nil},
		{"both", `spec: {updateStrategy: {rollingUpdate: {maxSurge: 1}}}`, one("spec.updateStrategy.rollingUpdate.maxSurge Invalid")},
		{"neither", `spec: {updateStrategy: {rollingUpdate: {maxUnavailable: 0}}}`, one("spec.updateStrategy.rollingUpdate.maxUnavailable Required")},
		{"strategy", `spec: {updateStrategy: {type: Magic}}`, one("spec.updateStrategy.type NotSupported")},
	})
}
