"""One job: train one set of weights unless it is there, then evaluate some cells on it, all in one model load.

A job runs in a worker, on whatever machine; it knows the store and nothing else. Whatever goes wrong in it that is its
own fault (divergence, a world that failed) becomes a record with a reason. A machine's fault ends the process; the job
is then done again elsewhere, and resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.faults import classify
from sweeps.evaluate_cells import Block, evaluate_cells, record_failed_evaluations, unevaluated
from sweeps.job import Job, MachineFault, Placed, Tell, asked_to_stop, elsewhere, opened_store
from sweeps.journal import utc
from sweeps.leases import Lease, LeaseLostError
from sweeps.spec import TrialSpec
from sweeps.stages import drop_group_notes, drop_trajectory
from sweeps.stopping import JobStopped
from sweeps.store import Store
from sweeps.train_weights import record_failed_training, record_found, train_weights

SILENT_SECONDS = 1800.0
"""A job that has told nothing for so long hangs, for all that others know: whoever waits for its weights follows it."""


def run_job(job: Job, tell: Tell, placed: Placed = lambda nodes: None) -> str:
    """Do a job; returns `finished`, or `failed` where its training failed, or something beside single evaluations did.

    How each evaluation ended its record says.

    It holds the lease on its trajectory, whose checkpoints and rows nobody else writes meanwhile: where another driver
    is at the same weights, this one waits and then finds what is done.

    Args:
        job: It.
        tell: Told how far it is.
        placed: Told where its parts are done, those that are done elsewhere.

    Raises:
        MachineFault: See there; like everything a machine does to us, it is for whoever runs jobs to try again.
        LeaseLostError: This process was not heard of for so long that another one took the job over.
        JobStopped: It was asked to stop. A training that had begun is recorded as stopped; the job resumes.
        StoreError: The store's copy does not answer; the machine's fault, too.
    """
    store, spec = opened_store(job.store, job.remote), TrialSpec.from_json(job.training)
    asked = asked_to_stop(store, job.stop)

    def waiting() -> None:
        asked.check()
        tell({"waiting": 1.0})

    store.sync()  # what others have done is found
    with store.synced():  # whoever hears of this job's end finds what it did
        return _under_lease(job, store, spec, waiting, tell, placed)


def _under_lease(
    job: Job, store: Store, spec: TrialSpec, waiting: Callable[[], None], tell: Tell, placed: Placed
) -> str:
    """Do a job as soon as its trajectory can be had."""
    with store.lease(spec.trajectory_id, waiting) as lease:

        def lives(numbers: Mapping[str, float]) -> None:
            lease.vouch(SILENT_SECONDS)
            tell(numbers)

        lease.vouch(SILENT_SECONDS)
        try:
            return _run(job, store, spec, lease, lives, placed)
        except (MachineFault, LeaseLostError, JobStopped):
            raise
        except Exception as error:
            fault = classify(error)
            if fault.owner == "machine":
                raise
            if not store.has("weights", spec.weights_id):
                record_failed_training(store, spec, fault.cause, lease, started=utc())
            else:
                record_failed_evaluations(store, unevaluated(store, _trials(job)), fault.cause, lease)
            return "failed"


def _trials(job: Job) -> list[TrialSpec]:
    return [TrialSpec.from_json(trial) for trial in job.evaluations]


def _run(job: Job, store: Store, spec: TrialSpec, lease: Lease, tell: Tell, placed: Placed) -> str:
    if not store.has("weights", spec.weights_id):
        if not train_weights(store, spec, job, lease, tell, placed):
            return "failed"
    else:  # perhaps by a process that was killed before it could record them, and clear up
        if (store.get("training", spec.weights_id) or {}).get("status") != "finished":
            record_found(store, spec, lease)
        store.send("weights", spec.weights_id)
        drop_group_notes(store, spec)
    missing = unevaluated(store, _trials(job), lease)
    for evaluation in dict.fromkeys(trial.evaluation for trial in missing):
        trials = [trial for trial in missing if trial.evaluation == evaluation]
        told = tuple(trial.to_json() for trial in trials)
        block = Block(job.store, told, job.resources.gpus_per_worker, lease, job.stop, job.remote)
        if not job.resources.in_group:
            evaluate_cells(block, tell)
        # Whoever waits for a group has reserved nothing of the machine it is on.
        elif (fault := elsewhere(evaluate_cells, block, job.resources, tell, placed)) is not None:
            record_failed_evaluations(store, trials, fault.cause, lease)
    if not job.keep_trajectory:
        drop_trajectory(store, spec)
    return "finished"
