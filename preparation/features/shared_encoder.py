"""One encoder for all processes that read: its weights lie once, on the device of the process that trains."""

import os
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

import numpy as np
import torch

from preparation.features.vision_encoder import VisionEncoder


class SharedEncoder:
    """Stands for an encoder where videos are extracted (``extraction.extract_video``), in any process.

    Where it was made it encodes itself. A copy in another process, such as a worker of a DataLoader, prepares the
    pixels there and has the result encoded here, by a thread, over a socket that only processes of this run can open.

    Args:
        encoder: loaded.
    """

    def __init__(self, encoder: VisionEncoder):
        self.outputs, self.preprocessing = encoder.outputs, encoder.preprocessing
        self.device = torch.device("cpu")
        """Where S-tokens are made: with the pixels."""
        self._encoder, self._home = encoder, os.getpid()
        self._one_at_a_time, self._connection = threading.Lock(), None
        self._key = os.urandom(32)
        self._listener = Listener(family="AF_UNIX", authkey=self._key)
        self._address = self._listener.address
        threading.Thread(target=self._listen, name="encoder", daemon=True).start()

    def encode(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """(T, H, W, 3) uint8 -> arrays, see ``VisionEncoder.encode``.

        Raises:
            RuntimeError: the encoder failed; the file is not to blame.
        """
        if os.getpid() == self._home:
            return self._encode(self.preprocessing(pixels, self._encoder.device))
        images = self.preprocessing(pixels, self.device).numpy()
        try:
            if self._connection is None or self._connection[0] != os.getpid():
                self._connection = os.getpid(), Client(self._address, authkey=self._key)
            self._connection[1].send(images)
            arrays, problem = self._connection[1].recv()
        except (OSError, EOFError) as error:
            raise RuntimeError(f"the process with the encoder is gone: {error}") from None
        if problem:
            raise RuntimeError(f"the encoder failed: {problem}")
        return arrays

    def _encode(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        with self._one_at_a_time:
            return self._encoder.encode_prepared(images)

    def _listen(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (ConnectionError, EOFError, AuthenticationError):  # somebody went away, or has not the key
                continue
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection) -> None:
        try:
            while True:
                images = torch.from_numpy(connection.recv())
                try:
                    connection.send((self._encode(images), ""))
                except Exception as error:  # raised where the images came from
                    connection.send(({}, f"{type(error).__name__}: {error}"))
        except (EOFError, OSError):  # the process has ended
            connection.close()

    def __getstate__(self) -> dict:
        """For another process."""
        return self.__dict__ | dict.fromkeys(("_encoder", "_listener", "_one_at_a_time", "_connection"))
